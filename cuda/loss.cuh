// Losses: outputs p, value and gradient by the logits of one sample, in both numerical forms, known mistakes included.
//
// Shapes: z, p and dz (UNITS) of one sample; the target is a class, a single unit's the class 0 or 1 itself. A thread does one sample.
// Which loss it is, is a lane's own: `Kind` and `Constants`, so that lanes with different losses share a launch.
// Formulas: ablate/losses.py, the same names in the same order; ablate/bugs.py for the mistakes.
#pragma once
#include "common.cuh"
#include <float.h>

enum LossName { CE, MSE, BCE, MAE, HINGE, FOCAL, LABEL_SMOOTHING };
enum OutputName { SOFTMAX, SIGMOID, IDENTITY };
enum Mistake { NONE, DIAGONAL_JACOBIAN, UNSHIFTED_SOFTMAX, DOUBLE_SOFTMAX };

struct Kind {
    int loss, output, is_naive, mistake;
};
struct Constants {
    real eps_log, eps_sum, gamma, smoothing;
};

// Loops over the classes are left as loops: they are short work, and unrolled they would be most of the code.
#define CLASSES(c) _Pragma("unroll 1") for (int c = 0; c < UNITS; ++c)

constexpr real TINY = sizeof(real) == 4 ? real(FLT_MIN) : real(DBL_MIN);

// The largest of the logits, and the sum of exp(z - largest).
template <int UNITS>
struct Softmax {
    const real* z;
    real largest, total;

    __device__ explicit Softmax(const real* logits) : z(logits), largest(logits[0]), total(0) {
        for (int c = 1; c < UNITS; ++c) largest = z[c] > largest || z[c] != z[c] ? z[c] : largest;
        CLASSES(c) total += exp(z[c] - largest);
    }
    __device__ real operator[](int c) const { return exp(z[c] - largest) / total; }
};

// p (d - Σ d p), in place; q is anything with an index that gives the probabilities.
template <int UNITS, class Probabilities>
__device__ void softmax_jacobian(const Probabilities& q, real* d) {
    real sum = 0;
    CLASSES(c) sum += d[c] * q[c];
    CLASSES(c) d[c] = q[c] * (d[c] - sum);
}

template <int UNITS>
struct Sample {
    const Kind kind;
    const Constants with;
    const real* z;
    real* p;
    const int target;
    Softmax<UNITS> shifted;

    // `z` are the logits that the loss sees.
    __device__ Sample(const Kind& kind_, const Constants& constants, const real* logits, real* outputs, int target_)
        : kind(kind_), with(constants), z(logits), p(outputs), target(target_), shifted(logits) {}

    __device__ real y(int c) const { return UNITS == 1 ? real(target) : real(c == target); }
    __device__ real smooth(int c) const {
        return kind.loss == LABEL_SMOOTHING ? y(c) * (1 - with.smoothing) + with.smoothing / UNITS : y(c);
    }
    __device__ real log_softmax(int c) const { return z[c] - shifted.largest - log(shifted.total); }

    __device__ void outputs() const {
        CLASSES(c)
            p[c] = kind.output == IDENTITY ? z[c] : kind.output == SIGMOID ? 1 / (1 + exp(-z[c])) : softmax(c);
    }
    __device__ real softmax(int c) const {
        if (kind.mistake == UNSHIFTED_SOFTMAX) return exp(z[c]) / unshifted_total();
        const real total = kind.is_naive && with.eps_sum > 0 ? shifted.total + with.eps_sum * exp(-shifted.largest) : shifted.total;
        return exp(z[c] - shifted.largest) / total;
    }
    __device__ real unshifted_total() const {
        real total = 0;
        CLASSES(c) total += exp(z[c]);
        return total;
    }

    __device__ real value() const {
        const bool is_naive = kind.is_naive || kind.mistake == UNSHIFTED_SOFTMAX;
        if (kind.loss == FOCAL) return is_naive ? naive_focal() : focal();
        real sum = 0;
        CLASSES(c) sum += is_naive ? naive_part(c) : part(c);
        return sum;
    }
    // What a class adds to the value, from logits.
    __device__ real part(int c) const {
        switch (kind.loss) {
            case CE: return y(c) > 0 ? -log_softmax(c) : real(0);
            case LABEL_SMOOTHING: return -smooth(c) * log_softmax(c);
            // softplus(z) - y z; the small term last, or it loses its digits
            case BCE: return (z[c] > 0 || z[c] != z[c] ? z[c] : real(0)) - y(c) * z[c] + log1p(exp(-fabs(z[c])));
            default: return same_part(c);
        }
    }
    // The same, from probabilities. 0 ln 0 is 0: a class that is no target costs nothing however small its probability.
    __device__ real naive_part(int c) const {
        switch (kind.loss) {
            case CE:
            case LABEL_SMOOTHING: return smooth(c) > 0 ? -smooth(c) * log(p[c] + with.eps_log) : real(0);
            case BCE: return -(y(c) > 0 ? log(p[c] + with.eps_log) : log(1 - p[c] + with.eps_log));
            default: return same_part(c);
        }
    }
    // Losses whose two forms are one.
    __device__ real same_part(int c) const {
        switch (kind.loss) {
            case MSE: return real(0.5) * (p[c] - y(c)) * (p[c] - y(c));
            case MAE: return fabs(p[c] - y(c));
            default: return margin(c) > 0 || margin(c) != margin(c) ? margin(c) : real(0);
        }
    }
    __device__ real margin(int c) const { return (1 + z[c] - z[target]) * (1 - y(c)); }
    // 1 - p_t as the sum of the others', which keeps its digits when p_t is near 1.
    __device__ real complement() const {
        real sum = 0;
        CLASSES(c) sum += shifted[c] * (1 - y(c));
        return sum;
    }
    __device__ real focal() const { return -(pow(complement(), with.gamma) * log_softmax(target)); }
    __device__ real naive_focal() const { return -pow(1 - p[target], with.gamma) * log(p[target] + with.eps_log); }

    // The gradient by z, of the loss as coded.
    __device__ void gradient(real* dz) const {
        if (kind.mistake == DIAGONAL_JACOBIAN) {
            CLASSES(c) dz[c] = by_p(c) * p[c] * (1 - p[c]);
        } else if (kind.is_naive) {
            CLASSES(c) dz[c] = by_p(c);
            jacobian(dz);
        } else {
            stable_gradient(dz);
        }
    }
    __device__ void stable_gradient(real* dz) const {
        const real slope = kind.loss == FOCAL ? focal_slope() : real(0), violations = kind.loss == HINGE ? violated() : real(0);
        CLASSES(c) switch (kind.loss) {
                case CE:
                case BCE:
                case LABEL_SMOOTHING: dz[c] = p[c] - smooth(c); break;
                case FOCAL: dz[c] = slope * (y(c) - p[c]); break;
                case HINGE: dz[c] = real(margin(c) > 0) - y(c) * violations; break;
                default: dz[c] = by_p(c);
            }
        if (kind.loss == MSE || kind.loss == MAE) jacobian(dz);
    }
    __device__ real violated() const {
        real sum = 0;
        CLASSES(c) sum += real(margin(c) > 0);
        return sum;
    }
    __device__ real focal_slope() const {
        // d value / d ln p_t; γ (1-p)^(γ-1) is 0·∞ where p_t rounds to 1.
        const real rest = complement(), log_p = log_softmax(target), above = rest > TINY || rest != rest ? rest : TINY;
        return with.gamma * pow(above, with.gamma - 1) * (1 - rest) * log_p - pow(rest, with.gamma);
    }
    // The derivative of the value by p.
    __device__ real by_p(int c) const {
        switch (kind.loss) {
            case CE:
            case LABEL_SMOOTHING: return smooth(c) > 0 ? -smooth(c) / (p[c] + with.eps_log) : real(0);
            case BCE: return y(c) > 0 ? -1 / (p[c] + with.eps_log) : 1 / (1 - p[c] + with.eps_log);
            case MSE: return p[c] - y(c);
            case MAE: return p[c] != p[c] ? p[c] : real(p[c] > y(c)) - real(p[c] < y(c));
            case HINGE: return real(margin(c) > 0) - y(c) * violated();
            default: return c == target ? naive_focal_slope() : real(0);
        }
    }
    __device__ real naive_focal_slope() const {
        const real rest = 1 - p[target], above = rest > TINY || rest != rest ? rest : TINY;
        return with.gamma * pow(above, with.gamma - 1) * log(p[target] + with.eps_log) - pow(rest, with.gamma) / (p[target] + with.eps_log);
    }
    // (∂p/∂z)ᵀ d, in place.
    __device__ void jacobian(real* d) const {
        if (kind.output == SOFTMAX) {
            softmax_jacobian<UNITS>(p, d);
        } else if (kind.output == SIGMOID) {
            CLASSES(c) d[c] *= p[c] * (1 - p[c]);
        }
    }
};

// One sample's outputs and value; returns the value. `seen` (UNITS) is scratch for what a second softmax sees.
template <int UNITS>
__device__ real lose(const Kind& kind, const Constants& with, const real* z, real* p, real* seen, int target) {
    if (kind.mistake == DOUBLE_SOFTMAX) {
        const Softmax<UNITS> once(z);
        CLASSES(c) seen[c] = once[c];
        z = seen;
    }
    const Sample<UNITS> sample(kind, with, z, p, target);
    sample.outputs();
    return sample.value();
}

// The gradient by the logits, after `lose`, which left in dz what a second softmax sees.
template <int UNITS>
__device__ void differentiate(const Kind& kind, const Constants& with, const real* z, real* p, real* dz, int target) {
    const bool is_twice = kind.mistake == DOUBLE_SOFTMAX;
    Sample<UNITS>(kind, with, is_twice ? dz : z, p, target).gradient(dz);
    if (is_twice) softmax_jacobian<UNITS>(Softmax<UNITS>(z), dz);
}

// The predicted class: the first largest logit, or for a single unit whether p > 1/2.
template <int UNITS>
__device__ int predict(const real* z) {
    if (UNITS == 1) return z[0] > 0;
    int best = 0;
    for (int c = 1; c < UNITS; ++c)
        if (z[best] == z[best] && !(z[c] <= z[best])) best = c;
    return best;
}
