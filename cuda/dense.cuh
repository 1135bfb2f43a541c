// Dense layer: forward, and the gradients of input, weights and biases.
//
// Shapes: x (n, INPUTS), y (n, OUTPUTS); theta: weights (INPUTS, OUTPUTS), then biases (OUTPUTS). All of one lane. A thread computes several
// outputs. Gradients of weights are SHARES partial sums over neighbouring samples, as in `conv.cuh`.
// Bounds: n times INPUTS and n times OUTPUTS below 2^31. Formulas: y = x W + b; dx = dy Wᵀ, dW = xᵀ dy, db = sum of dy over the samples.
#pragma once
#include "common.cuh"

template <int INPUTS, int OUTPUTS, int SHARES_>
struct Dense {
    static constexpr int IN = INPUTS, OUT = OUTPUTS, WEIGHTS = INPUTS * OUTPUTS, PARAMETERS = WEIGHTS + OUTPUTS, SHARES = SHARES_;
    static constexpr int UNITS = together(OUTPUTS, 8), GROUPS = OUTPUTS / UNITS;

    static __device__ void forward(const real* x, const real* theta, real* y, int n) {
        for (int at = thread(); at < n * GROUPS; at += threads()) {
            const int to = at % GROUPS * UNITS, sample = at / GROUPS;
            real sum[UNITS] = {};
            for (int from = 0; from < INPUTS; ++from) {
                const real input = x[(size_t)sample * INPUTS + from];
                for (int unit = 0; unit < UNITS; ++unit) sum[unit] += input * theta[from * OUTPUTS + to + unit];
            }
            for (int unit = 0; unit < UNITS; ++unit)
                y[(size_t)sample * OUTPUTS + to + unit] = sum[unit] + theta[WEIGHTS + to + unit];
        }
    }

    static __device__ void input_gradient(const real*, const real*, const real* dy, const real* theta, real* dx, int n) {
        for (int at = thread(); at < n * INPUTS; at += threads()) {
            const int from = at % INPUTS, sample = at / INPUTS;
            real sum = 0;
            for (int to = 0; to < OUTPUTS; ++to) sum += dy[(size_t)sample * OUTPUTS + to] * theta[from * OUTPUTS + to];
            dx[(size_t)sample * INPUTS + from] = sum;
        }
    }

    static __device__ void parameter_gradient(const real* x, const real* dy, real* partial, int n) {
        for (int at = thread(); at < SHARES * INPUTS * GROUPS; at += threads()) {
            const int to = at % GROUPS * UNITS, from = at / GROUPS % INPUTS, share = at / (GROUPS * INPUTS);
            real sum[UNITS] = {};
            for (int sample = first_of(share, n); sample < first_of(share + 1, n); ++sample) {
                const real input = x[(size_t)sample * INPUTS + from];
                for (int unit = 0; unit < UNITS; ++unit) sum[unit] += input * dy[(size_t)sample * OUTPUTS + to + unit];
            }
            for (int unit = 0; unit < UNITS; ++unit) partial[share * PARAMETERS + from * OUTPUTS + to + unit] = sum[unit];
        }
        for (int at = thread(); at < SHARES * OUTPUTS; at += threads()) {
            const int to = at % OUTPUTS, share = at / OUTPUTS;
            real sum = 0;
            for (int sample = first_of(share, n); sample < first_of(share + 1, n); ++sample)
                sum += dy[(size_t)sample * OUTPUTS + to];
            partial[share * PARAMETERS + WEIGHTS + to] = sum;
        }
    }

    static __device__ int first_of(int share, int n) { return (int)((long long)share * n / SHARES); }
};
