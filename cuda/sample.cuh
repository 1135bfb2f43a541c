// One sample at the network's output: its logits, its outputs, and the Jacobian of the output function.
//
// Shapes: z, p and dz (UNITS) of one sample; its target is a class (for a single unit, 0 or 1), or UNITS numbers (`scoring.cuh`). A
// thread computes one sample.
// Each lane has its own loss and output function, `Kind` and `Constants`, so that lanes with different losses share a launch.
// LOSSES and OUTPUTS, lists of names, and LOSS_CONSTANTS are generated from ablate/problem. Formulas: ablate/problem/outputs.py.
#pragma once
#include "scoring.cuh"
#include <float.h>

#define NAME(name) name,
enum class LossName { LOSSES(NAME) };
enum OutputName { OUTPUTS(NAME) };
#undef NAME

struct Kind {
    int loss, output, is_naive;
};
// The constants of a loss; its own are in the order of its fields.
struct Constants {
    real eps_log, eps_sum, own[LOSS_CONSTANTS];
};

// Loops over the classes of a sample type S are not unrolled: they are short work, and unrolled they would be most of the code.
#define CLASSES(c) _Pragma("unroll 1") for (int c = 0; c < S::COUNT; ++c)

constexpr real TINY = sizeof(real) == 4 ? real(FLT_MIN) : real(DBL_MIN);

// The largest of the logits, and the sum of exp(z - largest).
template <int UNITS>
struct Softmax {
    using S = Softmax;
    static constexpr int COUNT = UNITS;
    const real* z;
    real largest, total;

    __device__ explicit Softmax(const real* logits) : z(logits), largest(logits[0]), total(0) {
        for (int c = 1; c < UNITS; ++c) largest = z[c] > largest || z[c] != z[c] ? z[c] : largest;
        CLASSES(c) total += exp(z[c] - largest);
    }
    __device__ real operator[](int c) const { return exp(z[c] - largest) / total; }
};

// q (d - Σ d q), in place of d; q[c] gives the probabilities.
template <int UNITS, class Probabilities>
__device__ void softmax_jacobian(const Probabilities& q, real* d) {
    using S = Softmax<UNITS>;
    real sum = 0;
    CLASSES(c) sum += d[c] * q[c];
    CLASSES(c) d[c] = q[c] * (d[c] - sum);
}

template <int UNITS>
struct Sample {
    using S = Sample;
    static constexpr int COUNT = UNITS;
    const Kind kind;
    const Constants with;
    const real* z;
    real* p;
    const Target* numbers;
    const int target;
    Softmax<UNITS> shifted;

    // `z` are the logits that the loss sees. A loss that needs a class is not computed where there is none.
    __device__ Sample(const Kind& kind_, const Constants& constants, const real* logits, real* outputs, const Target* targets)
        : kind(kind_), with(constants), z(logits), p(outputs), numbers(targets), target(SCORING::IS_CLASS ? int(*targets) : 0),
          shifted(logits) {}

    __device__ real y(int c) const {
        if constexpr (!SCORING::IS_CLASS) return numbers[c];
        return UNITS == 1 ? real(target) : real(c == target);
    }
    __device__ real log_softmax(int c) const { return z[c] - shifted.largest - log(shifted.total); }

    __device__ void outputs() const { CLASSES(c) p[c] = output(c); }
    __device__ real output(int c) const {
        switch (OutputName(kind.output)) {
            case SOFTMAX: return softmax(c);
            case SIGMOID: return 1 / (1 + exp(-z[c]));
            case IDENTITY: return z[c];
        }
        __builtin_unreachable();
    }
    __device__ real softmax(int c) const {
        const real total = kind.is_naive && with.eps_sum > 0 ? shifted.total + with.eps_sum * exp(-shifted.largest) : shifted.total;
        return exp(z[c] - shifted.largest) / total;
    }
    // (∂p/∂z)ᵀ d, in place.
    __device__ void jacobian(real* d) const {
        switch (OutputName(kind.output)) {
            case SOFTMAX: return softmax_jacobian<UNITS>(p, d);
            case SIGMOID: CLASSES(c) d[c] *= p[c] * (1 - p[c]); return;
            case IDENTITY: return;
        }
        __builtin_unreachable();
    }
};

// The predicted class: the first largest logit; for a single unit, whether p > 1/2.
template <int UNITS>
__device__ int predict(const real* z) {
    if (UNITS == 1) return z[0] > 0;
    int best = 0;
    for (int c = 1; c < UNITS; ++c)
        if (z[best] == z[best] && !(z[c] <= z[best])) best = c;
    return best;
}
