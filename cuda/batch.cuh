// A batch before and after the network: rows are gathered by their indices, losses and predictions are summed.
//
// Shapes: rows (N, ROW), fit (INPUT) indices into a row, ROW for a zero; numbers (n) the rows to take; known (N, WIDTH<UNITS>) their
// targets; x (n, INPUT), targets (n, WIDTH<UNITS>), predicted, values, confidence (n), of one lane; class_weights (CLASS_WEIGHTS), by
// which the losses of a class's samples are multiplied. Sums are taken by the first block of a lane, in double and in a fixed order.
#pragma once
#include "common.cuh"
#include "objective.cuh"

// The length of a lane's class weights; a single unit stands for two classes.
#define CLASS_WEIGHTS (LOGITS == 1 ? 2 : LOGITS)

template <int ROW, int INPUT, int UNITS>
__device__ void gather(const real* rows, const Target* known, const int* fit, const int* numbers, real* x, Target* targets, int n) {
    for (int at = thread(); at < n * INPUT; at += threads()) {
        const int from = fit[at % INPUT];
        x[at] = from < ROW ? rows[(size_t)numbers[at / INPUT] * ROW + from] : real(0);
    }
    constexpr int EACH = WIDTH<UNITS>;
    for (int at = thread(); at < n * EACH; at += threads()) targets[at] = known[(size_t)numbers[at / EACH] * EACH + at % EACH];
}

template <int UNITS>
__device__ void loss_and_gradient(const Kind& kind, const Constants& with, const real* class_weights, bool is_mean, const real* z,
                                  const Target* targets, real* p, real* dz, real* values, int* predicted, int n) {
    const real scale = is_mean ? real(1) / n : real(1);
    for (int at = thread(); at < n; at += threads()) {
        const size_t first = (size_t)at * UNITS;
        const Target* target = targets + (size_t)at * WIDTH<UNITS>;
        const real weight = SCORING::weight(class_weights, target);
        values[at] = weight * lose<UNITS>(kind, with, z + first, p + first, dz + first, target);
        predicted[at] = predict<UNITS>(z + first);
        differentiate<UNITS>(kind, with, z + first, p + first, dz + first, target);
        for (int c = 0; c < UNITS; ++c) dz[first + c] *= weight * scale;
    }
}

template <int UNITS>
__device__ void loss_alone(const Kind& kind, const Constants& with, const real* class_weights, const real* z, const Target* targets, real* p,
                           real* seen, real* values, real* confidence, int* predicted, int n) {
    for (int at = thread(); at < n; at += threads()) {
        const size_t first = (size_t)at * UNITS;
        const Target* target = targets + (size_t)at * WIDTH<UNITS>;
        values[at] = SCORING::weight(class_weights, target) * lose<UNITS>(kind, with, z + first, p + first, seen + first, target);
        predicted[at] = predict<UNITS>(z + first);
        real largest = UNITS == 1 && 1 - p[at] > p[at] ? 1 - p[at] : p[first];
        for (int c = 1; c < UNITS; ++c) largest = p[first + c] > largest || p[first + c] != p[first + c] ? p[first + c] : largest;
        confidence[at] = largest;
    }
}

// What a step logs: the sum of losses and the tallies. A lane whose loss is not finite ends here.
template <int UNITS>
__device__ void tally_step(const real* values, const int* predicted, const Target* targets, const real* p, const double* facts, double* loss,
                           double* tallies, int* ended, int step, int n) {
    double sum = 0, counted[SCORING::TRAINED] = {};
    for (int at = threadIdx.x; at < n; at += blockDim.x) {
        sum += values[at];
        for (int m = 0; m < SCORING::TRAINED; ++m) counted[m] += SCORING::trained<UNITS>(m, at, predicted, targets, p, facts);
    }
    sum = block_sum(sum);
    for (int m = 0; m < SCORING::TRAINED; ++m) counted[m] = block_sum(counted[m]);
    if (threadIdx.x == 0 && step < *ended) {
        *loss = sum;
        for (int m = 0; m < SCORING::TRAINED; ++m) tallies[m] = counted[m];
        if (!isfinite(sum)) *ended = step;
    }
}
