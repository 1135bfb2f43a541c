// From partial sums to new weights: the gradient of a batch, and the update rules w -= rate * step.
//
// Shapes, of one lane: partial (SHARES, PARAMETERS) and the layer's part of gradient (PARAMETERS); theta, gradient and the rule's two
// states (size). The rates carry learning rate and signs.
#pragma once
#include "mistakes.cuh"
#include "rules.cuh"

struct Rates {
    real hidden, output;
};

// A lane's rates at a step, of rates (K, rated): those of every step of the epoch, or one pair for all.
__device__ __forceinline__ const Rates& rates_at(const Rates* rates, int rated, int lane, int step) {
    return rates[(size_t)lane * rated + min(step, rated - 1)];
}

__device__ inline void add_shares(const real* partial, int shares, int parameters, int weights, real* gradient, int n) {
    for (int at = thread(); at < parameters; at += threads()) {
        real sum = 0;
        for (int share = 0; share < shares; ++share) sum += partial[share * parameters + at];
        gradient[at] = BACKWARD::gradient(sum, gradient[at], at >= weights, n);
    }
}

// The sum of squares of the gradient that clip_norm limits, in NORM_PARTS parts (parts); a block takes a part, so that the order of the additions
// is the same for any number of blocks.
__device__ inline void square_parts(const Rule& rule, const real* gradient, int size, double* parts) {
    const int length = (size + NORM_PARTS - 1) / NORM_PARTS;
    for (int part = blockIdx.x; part < NORM_PARTS; part += gridDim.x) {
        double sum = 0;
        for (int at = part * length + threadIdx.x; at < min(size, (part + 1) * length); at += blockDim.x) {
            const double g = clipped(rule, gradient[at]);
            sum += g * g;
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) parts[part] = sum;
    }
}

// What scales a gradient down to clip_norm, or 1; every thread of the block must call it.
__device__ inline real norm_scale(const Rule& rule, const double* parts) {
    const double sum = block_sum(threadIdx.x < NORM_PARTS ? parts[threadIdx.x] : 0.0);
    const double scale = rule.clip_norm / (sqrt(sum) + NORM_EPSILON);
    return scale >= 1 ? 1 : scale;
}

// `output_start`: the first parameter of the output layer, which has its own learning rate; `parts`: those of `square_parts` if clip_norm is on.
__device__ inline void update_weights(const Rule& rule, const Rates& rates, const Corrections& corrections, const real* gradient,
                                      const double* parts, real* first, real* second, real* theta, int size, int output_start) {
    const real scale = rule.clip_norm > 0 ? norm_scale(rule, parts) : real(1);
    for (int at = thread(); at < size; at += threads()) {
        const real step = rule_step(rule, corrections, scale, theta[at], gradient[at], first + at, second + at);
        theta[at] -= (at < output_start ? rates.hidden : rates.output) * step;
    }
}

// Watches the gradient: each layer's sum of squares (layers), and how many entries of the output layer's lr times gradient are above 1, and
// below 1e-7 but not 0, in absolute value (the bounds of docs/posts/digit_mlp.md). A block takes a layer.
__device__ inline void watch_gradient(const real* gradient, const int* edges, int layers, const Rates& rates, double* squares, int* counts) {
    for (int layer = blockIdx.x; layer < layers; layer += gridDim.x) {
        double sum = 0;
        int large = 0, small = 0;
        for (int at = edges[layer] + threadIdx.x; at < edges[layer + 1]; at += blockDim.x) {
            const real change = fabs(rates.output * gradient[at]);
            sum += (double)gradient[at] * gradient[at];
            large += change > 1;
            small += change > 0 && change < real(1e-7);
        }
        sum = block_sum(sum);
        large = block_sum(large);
        small = block_sum(small);
        if (threadIdx.x == 0) squares[layer] = sum;
        if (threadIdx.x == 0 && layer == layers - 1) counts[0] = large, counts[1] = small;
    }
}
