// The loss over its output function as a trial computes it: healthy, or with a known mistake. `ablate/problem/mistakes.py` names the
// structs.
//
// OBJECTIVE, by -D: the struct with which the kernels are compiled; the lanes of an engine share their mistake.
#pragma once
#include "losses.cuh"

#ifndef OBJECTIVE
#define OBJECTIVE HealthyObjective
#endif

// The loss over its output function, for a sample s.
struct HealthyObjective {
    // The logits that the loss sees; `seen` (UNITS) is scratch memory for logits other than z.
    template <int UNITS>
    static __device__ const real* seen_logits(const real* z, real*) {
        return z;
    }
    template <class S>
    static __device__ void outputs(const S& s) {
        s.outputs();
    }
    template <class S>
    static __device__ real value(const S& s) {
        return value_of(s, s.kind.is_naive);
    }
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        gradient_of(s, dz);
    }
    // From the gradient with respect to the logits seen to that with respect to z, in place.
    template <int UNITS>
    static __device__ void back_to_logits(const real*, real*) {}
};

struct DiagonalJacobian : HealthyObjective {
    template <class S>
    static __device__ void gradient(const S& s, real* dz) {
        CLASSES(c) dz[c] = naive_gradient_of(s, c) * s.p[c] * (1 - s.p[c]);
    }
};

struct UnshiftedSoftmax : HealthyObjective {
    template <class S>
    static __device__ void outputs(const S& s) {
        real total = 0;
        CLASSES(c) total += exp(s.z[c]);
        CLASSES(c) s.p[c] = exp(s.z[c]) / total;
    }
    template <class S>
    static __device__ real value(const S& s) {
        return value_of(s, true);
    }
};

struct DoubleSoftmax : HealthyObjective {
    template <int UNITS>
    static __device__ const real* seen_logits(const real* z, real* seen) {
        using S = Softmax<UNITS>;
        const S once(z);
        CLASSES(c) seen[c] = once[c];
        return seen;
    }
    template <int UNITS>
    static __device__ void back_to_logits(const real* z, real* dz) {
        softmax_jacobian<UNITS>(Softmax<UNITS>(z), dz);
    }
};

// Computes one sample's outputs and returns its value. `seen` (UNITS) is scratch memory for the logits that the loss sees.
template <int UNITS>
__device__ real lose(const Kind& kind, const Constants& with, const real* z, real* p, real* seen, const Target* targets) {
    const Sample<UNITS> sample(kind, with, OBJECTIVE::seen_logits<UNITS>(z, seen), p, targets);
    OBJECTIVE::outputs(sample);
    return OBJECTIVE::value(sample);
}

// The gradient with respect to the logits, after `lose`; dz also serves as scratch memory for the logits that the loss sees.
template <int UNITS>
__device__ void differentiate(const Kind& kind, const Constants& with, const real* z, real* p, real* dz, const Target* targets) {
    OBJECTIVE::gradient(Sample<UNITS>(kind, with, OBJECTIVE::seen_logits<UNITS>(z, dz), p, targets), dz);
    OBJECTIVE::back_to_logits<UNITS>(z, dz);
}
