// Update rules, w -= rate * step: from a gradient to a step, one struct per rule, named by `ablate/problem/optimizers.py`.
//
// A rule works on one element of the gradient and the same element of its two states, 0 at first. RULES, a list of names, is generated
// from ablate/problem, and so are the numbers of constants and corrections. Formulas: ablate/problem/optimizers.py.
#pragma once
#include "common.cuh"

#define NAME(name) name,
enum class RuleName { RULES(NAME) };
#undef NAME

// A lane's rule; the constants are those of `Optimizer.constants`. The gradient is clipped to `clip_value` entry by entry, then to `clip_norm`
// as a whole. Then `l2` times the weight is added to it, or `decoupled` times the weight to the step; both have the sign of the rate. What is
// 0 is off.
struct Rule {
    int name;
    real constants[RULE_CONSTANTS];
    real clip_norm, clip_value, l2, decoupled;
};
// Factors that depend on the number of the step, 1 / (1 - decay^t) for each of `Optimizer.decays`.
struct Corrections {
    real factors[RULE_CORRECTIONS];
};

struct Sgd {
    static __device__ real step(const Rule&, const Corrections&, real g, real*, real*) { return g; }
};

struct Momentum {
    static __device__ real step(const Rule& rule, const Corrections&, real g, real* velocity, real*) {
        return *velocity = *velocity * rule.constants[0] + g;
    }
};

struct Nesterov {
    static __device__ real step(const Rule& rule, const Corrections&, real g, real* velocity, real*) {
        *velocity = *velocity * rule.constants[0] + g;
        return g + rule.constants[0] * *velocity;
    }
};

struct Adam {
    static __device__ real step(const Rule& rule, const Corrections& corrections, real g, real* mean, real* square) {
        *mean += rule.constants[0] * (g - *mean);
        *square += rule.constants[1] * (g * g - *square);
        return corrections.factors[0] * *mean / (sqrt(corrections.factors[1] * *square) + rule.constants[2]);
    }
};

struct AdamW : Adam {};

struct RmsProp {
    static __device__ real step(const Rule& rule, const Corrections&, real g, real* square, real*) {
        *square += rule.constants[0] * (g * g - *square);
        return g / (sqrt(*square) + rule.constants[1]);
    }
};

struct Adagrad {
    static __device__ real step(const Rule& rule, const Corrections&, real g, real* square, real*) {
        *square += g * g;
        return g / (sqrt(*square) + rule.constants[0]);
    }
};

struct Adadelta {
    static __device__ real step(const Rule& rule, const Corrections&, real g, real* square, real* change) {
        *square += rule.constants[0] * (g * g - *square);
        const real step = sqrt(*change + rule.constants[1]) / sqrt(*square + rule.constants[1]) * g;
        *change += rule.constants[0] * (step * step - *change);
        return step;
    }
};

__device__ inline real named_step(const Rule& rule, const Corrections& corrections, real g, real* first, real* second) {
    switch (RuleName(rule.name)) {
#define CASE(name) \
    case RuleName::name: return name::step(rule, corrections, g, first, second);
        RULES(CASE)
#undef CASE
    }
    __builtin_unreachable();
}

// An entry of the gradient, not beyond clip_value; NaN stays NaN.
__device__ __forceinline__ real clipped(const Rule& rule, real g) {
    if (rule.clip_value > 0) return g > rule.clip_value ? rule.clip_value : g < -rule.clip_value ? -rule.clip_value : g;
    return g;
}

// The step for a weight w with the gradient g; `scale` is that of the clipped norm. What is off must not change a bit, so it is not computed.
__device__ inline real rule_step(const Rule& rule, const Corrections& corrections, real scale, real w, real g, real* first, real* second) {
    g = clipped(rule, g);
    if (rule.clip_norm > 0) g *= scale;
    if (rule.l2 != 0) g += rule.l2 * w;
    real step = named_step(rule, corrections, g, first, second);
    if (rule.decoupled != 0) step += rule.decoupled * w;
    return step;
}
