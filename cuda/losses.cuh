// Losses: value and gradient of one sample, in both numerical forms, one struct per loss, named by `ablate/problem/losses.py`.
//
// A loss has four functions of a sample s (`Sample` of sample.cuh: logits z, outputs p, targets y, constants):
//   value(s)              the value from the logits            gradient(s, dz)       its derivative with respect to the logits
//   naive_value(s)        the value from the outputs           naive_gradient(s, c)  its derivative with respect to output c
// `Parts` makes those that a loss does not write itself, from one part per class. The formulas are those of ablate/problem/losses.py.
#pragma once
#include "sample.cuh"

// A value that is a sum over the classes of part(s, c), by default naive_part(s, c); a gradient through the Jacobian of the output
// function.
template <class Loss>
struct Parts {
    template <class S>
    static __device__ real value(const S& s) {
        real sum = 0;
        CLASSES(c) sum += Loss::part(s, c);
        return sum;
    }
    template <class S>
    static __device__ real naive_value(const S& s) {
        real sum = 0;
        CLASSES(c) sum += Loss::naive_part(s, c);
        return sum;
    }
    template <class S>
    static __device__ real part(const S& s, int c) {
        return Loss::naive_part(s, c);
    }
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        CLASSES(c) dz[c] = Loss::naive_gradient(s, c);
        s.jacobian(dz);
    }
};

struct CrossEntropy : Parts<CrossEntropy> {
    template <class S>
    static __device__ real part(const S& s, int c) {
        return s.y(c) > 0 ? -s.log_softmax(c) : real(0);
    }
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        CLASSES(c) dz[c] = s.p[c] - s.y(c);
    }
    // 0 ln 0 is 0: a class that is not a target costs nothing, however small its probability.
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return s.y(c) > 0 ? -s.y(c) * log(s.p[c] + s.with.eps_log) : real(0);
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return s.y(c) > 0 ? -s.y(c) / (s.p[c] + s.with.eps_log) : real(0);
    }
};

// own[0]: smoothing, the share of the target that is spread over all classes.
struct LabelSmoothing : Parts<LabelSmoothing> {
    template <class S>
    static __device__ real smooth(const S& s, int c) {
        return s.y(c) * (1 - s.with.own[0]) + s.with.own[0] / S::COUNT;
    }
    template <class S>
    static __device__ real part(const S& s, int c) {
        return -smooth(s, c) * s.log_softmax(c);
    }
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        CLASSES(c) dz[c] = s.p[c] - smooth(s, c);
    }
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return smooth(s, c) > 0 ? -smooth(s, c) * log(s.p[c] + s.with.eps_log) : real(0);
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return smooth(s, c) > 0 ? -smooth(s, c) / (s.p[c] + s.with.eps_log) : real(0);
    }
};

// own[0]: smoothing, as above. Cross-entropy against the smoothed target, minus the target's entropy.
struct KullbackLeibler : Parts<KullbackLeibler> {
    template <class S>
    static __device__ real part(const S& s, int c) {
        const real t = LabelSmoothing::smooth(s, c);
        return t > 0 ? t * (log(t) - s.log_softmax(c)) : real(0);
    }
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        LabelSmoothing::gradient(s, dz);
    }
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        const real t = LabelSmoothing::smooth(s, c);
        return t > 0 ? t * (log(t) - log(s.p[c] + s.with.eps_log)) : real(0);
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return LabelSmoothing::naive_gradient(s, c);
    }
};

// own[0]: smoothing, as above.
struct ReverseKullbackLeibler : Parts<ReverseKullbackLeibler> {
    template <class S>
    static __device__ real distance(const S& s, int c) {
        return s.log_softmax(c) - log(LabelSmoothing::smooth(s, c));
    }
    // What stands inside the logarithm: p ln p is 0 where p is.
    template <class S>
    static __device__ real inside(const S& s, int c) {
        return s.p[c] > 0 ? s.p[c] + s.with.eps_log : real(1);
    }
    template <class S>
    static __device__ real part(const S& s, int c) {
        return s.p[c] * distance(s, c);
    }
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        CLASSES(c) dz[c] = distance(s, c);
        softmax_jacobian<S::COUNT>(s.p, dz);
    }
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return s.p[c] * (log(inside(s, c)) - log(LabelSmoothing::smooth(s, c)));
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return log(inside(s, c)) + s.p[c] / inside(s, c) - log(LabelSmoothing::smooth(s, c));
    }
};

struct SquaredError : Parts<SquaredError> {
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return real(0.5) * (s.p[c] - s.y(c)) * (s.p[c] - s.y(c));
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return s.p[c] - s.y(c);
    }
};

struct BinaryCrossEntropy : Parts<BinaryCrossEntropy> {
    // softplus(z) - y z; the small term is added last, to keep its digits.
    template <class S>
    static __device__ real part(const S& s, int c) {
        const real z = s.z[c];
        return (z > 0 || z != z ? z : real(0)) - s.y(c) * z + log1p(exp(-fabs(z)));
    }
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        CLASSES(c) dz[c] = s.p[c] - s.y(c);
    }
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return -(s.y(c) > 0 ? log(s.p[c] + s.with.eps_log) : log(1 - s.p[c] + s.with.eps_log));
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return s.y(c) > 0 ? -1 / (s.p[c] + s.with.eps_log) : 1 / (1 - s.p[c] + s.with.eps_log);
    }
};

struct AbsoluteError : Parts<AbsoluteError> {
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return fabs(s.p[c] - s.y(c));
    }
    // The sign; NaN stays NaN.
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return s.p[c] != s.p[c] ? s.p[c] : real(s.p[c] > s.y(c)) - real(s.p[c] < s.y(c));
    }
};

// own[0]: delta.
struct Huber : Parts<Huber> {
    // NaN stays NaN.
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        const real size = fabs(s.p[c] - s.y(c)), near = size > s.with.own[0] ? s.with.own[0] : size;
        return near * (size - near * real(0.5));
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        const real error = s.p[c] - s.y(c), delta = s.with.own[0];
        return error > delta ? delta : error < -delta ? -delta : error;
    }
};

// own[0]: the margin.
struct Hinge : Parts<Hinge> {
    template <class S>
    static __device__ real margin(const S& s, int c) {
        return (s.with.own[0] + s.z[c] - s.z[s.target]) * (1 - s.y(c));
    }
    // By how much the margin is violated; NaN stays NaN.
    template <class S>
    static __device__ real violation(const S& s, int c) {
        const real m = margin(s, c);
        return m > 0 || m != m ? m : real(0);
    }
    template <class S>
    static __device__ real violated(const S& s) {
        real sum = 0;
        CLASSES(c) sum += real(margin(s, c) > 0);
        return sum;
    }
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return violation(s, c);
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return real(margin(s, c) > 0) - s.y(c) * violated(s);
    }
    // Counted once for all classes.
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        const real violations = violated(s);
        CLASSES(c) dz[c] = real(margin(s, c) > 0) - s.y(c) * violations;
    }
};

// own[0]: the margin.
struct SquaredHinge : Parts<SquaredHinge> {
    template <class S>
    static __device__ real slopes(const S& s) {
        real sum = 0;
        CLASSES(c) sum += 2 * Hinge::violation(s, c);
        return sum;
    }
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return Hinge::violation(s, c) * Hinge::violation(s, c);
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        return 2 * Hinge::violation(s, c) - s.y(c) * slopes(s);
    }
    // Summed once for all classes.
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        const real sum = slopes(s);
        CLASSES(c) dz[c] = 2 * Hinge::violation(s, c) - s.y(c) * sum;
    }
};

// own: gamma, the weight of the class that is meant, that of the others. Over a sigmoid every class has a loss of its own.
struct Focal {
    // 1 - p_t as the sum of the other classes' probabilities, which stays accurate when p_t is near 1.
    template <class S>
    static __device__ real complement(const S& s) {
        real sum = 0;
        CLASSES(c) sum += s.shifted[c] * (1 - s.y(c));
        return sum;
    }
    template <class S>
    static __device__ real weight(const S& s, int c) {
        // No computed index: it would put the constants of every sample on the stack.
        return s.y(c) > 0 ? s.with.own[1] : s.with.own[2];
    }
    // Of the probability q that was given to the truth, the value without its weight, and its derivative with respect to q.
    template <class S>
    static __device__ real naive(const S& s, real q) {
        return -pow(1 - q, s.with.own[0]) * log(q + s.with.eps_log);
    }
    template <class S>
    static __device__ real naive_slope(const S& s, real q) {
        const real gamma = s.with.own[0], rest = 1 - q, above = rest > TINY || rest != rest ? rest : TINY;
        return gamma * pow(above, gamma - 1) * log(q + s.with.eps_log) - pow(rest, gamma) / (q + s.with.eps_log);
    }
    // The logit of the truth: of this class or, where the class is not meant, of its absence.
    template <class S>
    static __device__ real truth(const S& s, int c) {
        return s.y(c) > 0 ? s.z[c] : -s.z[c];
    }
    // -ln of the truth's probability, by softplus.
    static __device__ real surprise(real u) { return (u < 0 || u != u ? -u : real(0)) + log1p(exp(-fabs(u))); }

    template <class S>
    static __device__ real value(const S& s) {
        if (s.kind.output != SIGMOID) return -(pow(complement(s), s.with.own[0]) * s.log_softmax(s.target)) * s.with.own[1];
        real sum = 0;
        CLASSES(c) {
            const real u = truth(s, c);
            sum += weight(s, c) * pow(1 / (1 + exp(u)), s.with.own[0]) * surprise(u);
        }
        return sum;
    }
    template <class S>
    static __device__ real naive_value(const S& s) {
        if (s.kind.output != SIGMOID) return naive(s, s.p[s.target]) * s.with.own[1];
        real sum = 0;
        CLASSES(c) sum += weight(s, c) * naive(s, s.y(c) > 0 ? s.p[c] : 1 - s.p[c]);
        return sum;
    }
    // d value / d ln p_t; γ (1-p)^(γ-1) is 0·∞ where p_t rounds to 1.
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        const real gamma = s.with.own[0];
        if (s.kind.output == SIGMOID) {
            CLASSES(c) {
                const real u = truth(s, c), rest = 1 / (1 + exp(u));
                const real slope = weight(s, c) * pow(rest, gamma) * (gamma * (1 - rest) * surprise(u) + rest);
                dz[c] = s.y(c) > 0 ? -slope : slope;
            }
            return;
        }
        const real rest = complement(s), log_p = s.log_softmax(s.target);
        const real above = rest > TINY || rest != rest ? rest : TINY;
        const real slope = gamma * pow(above, gamma - 1) * (1 - rest) * log_p - pow(rest, gamma);
        CLASSES(c) dz[c] = slope * s.with.own[1] * (s.y(c) - s.p[c]);
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        if (s.kind.output != SIGMOID) return c == s.target ? naive_slope(s, s.p[c]) * s.with.own[1] : real(0);
        return s.y(c) > 0 ? weight(s, c) * naive_slope(s, s.p[c]) : -weight(s, c) * naive_slope(s, 1 - s.p[c]);
    }
};

// Calls a function with the struct of a lane's loss.
template <class Function>
__device__ __forceinline__ auto with_loss(int loss, Function function) {
    switch (LossName(loss)) {
#define CASE(name) \
    case LossName::name: return function(name());
        LOSSES(CASE)
#undef CASE
    }
    __builtin_unreachable();
}

template <class S>
__device__ real value_of(const S& s, bool is_naive) {
    return with_loss(s.kind.loss, [&](auto loss) { return is_naive ? decltype(loss)::naive_value(s) : decltype(loss)::value(s); });
}

// The derivative of the value with respect to output c.
template <class S>
__device__ real naive_gradient_of(const S& s, int c) {
    return with_loss(s.kind.loss, [&](auto loss) { return decltype(loss)::naive_gradient(s, c); });
}

// The gradient with respect to the logits, in the form that is configured.
template <class S>
__device__ void gradient_of(const S& s, real* dz) {
    with_loss(s.kind.loss, [&](auto loss) {
        if (s.kind.is_naive) {
            CLASSES(c) dz[c] = decltype(loss)::naive_gradient(s, c);
            s.jacobian(dz);
        } else {
            decltype(loss)::gradient(s, dz);
        }
    });
}
