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

struct Hinge : Parts<Hinge> {
    template <class S>
    static __device__ real margin(const S& s, int c) {
        return (1 + s.z[c] - s.z[s.target]) * (1 - s.y(c));
    }
    template <class S>
    static __device__ real violated(const S& s) {
        real sum = 0;
        CLASSES(c) sum += real(margin(s, c) > 0);
        return sum;
    }
    template <class S>
    static __device__ real naive_part(const S& s, int c) {
        return margin(s, c) > 0 || margin(s, c) != margin(s, c) ? margin(s, c) : real(0);
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

// own[0]: gamma.
struct Focal {
    // 1 - p_t as the sum of the other classes' probabilities, which stays accurate when p_t is near 1.
    template <class S>
    static __device__ real complement(const S& s) {
        real sum = 0;
        CLASSES(c) sum += s.shifted[c] * (1 - s.y(c));
        return sum;
    }
    template <class S>
    static __device__ real value(const S& s) {
        return -(pow(complement(s), s.with.own[0]) * s.log_softmax(s.target));
    }
    template <class S>
    static __device__ real naive_value(const S& s) {
        return -pow(1 - s.p[s.target], s.with.own[0]) * log(s.p[s.target] + s.with.eps_log);
    }
    // d value / d ln p_t; γ (1-p)^(γ-1) is 0·∞ where p_t rounds to 1.
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        const real gamma = s.with.own[0], rest = complement(s), log_p = s.log_softmax(s.target);
        const real above = rest > TINY || rest != rest ? rest : TINY;
        const real slope = gamma * pow(above, gamma - 1) * (1 - rest) * log_p - pow(rest, gamma);
        CLASSES(c) dz[c] = slope * (s.y(c) - s.p[c]);
    }
    template <class S>
    static __device__ real naive_gradient(const S& s, int c) {
        if (c != s.target) return 0;
        const real gamma = s.with.own[0], rest = 1 - s.p[c], above = rest > TINY || rest != rest ? rest : TINY;
        return gamma * pow(above, gamma - 1) * log(s.p[c] + s.with.eps_log) - pow(rest, gamma) / (s.p[c] + s.with.eps_log);
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
