// Kernels around the network: gather a batch, compute its loss with and without gradient, and sum it up.
//
// SAMPLE, FITTED, LOGITS and CAPACITY, by -D: the lengths of a row, of the network's input and of the logits, and the samples that an array
// holds. Arrays of a batch are (L, CAPACITY, ...), of which n samples are used; `kinds`, `constants`, `class_weights`, `is_mean`, `ended`
// and the sums are (K, ...). Grid: (any number, L); that of the tallies is (1, L). Bounds: n FITTED and n LOGITS below 2^31. The functions
// called are in `batch.cuh` and `objective.cuh`.
#include "batch.cuh"

KERNEL gather_rows(const int* lanes, const real* rows, const int* labels, const int* fit, const int* orders, const int* order_of, int count,
                   int first, real* x, int* targets, int n) {
    gather<SAMPLE, FITTED>(rows, labels, fit, orders + (size_t)order_of[lanes[slot()]] * count + first, x + (size_t)slot() * CAPACITY * FITTED,
                           targets + (size_t)slot() * CAPACITY, n);
}

KERNEL loss_gradient(const int* lanes, const Kind* kinds, const Constants* constants, const real* class_weights, const int* is_mean,
                     const real* z, const int* targets, real* p, real* dz, real* values, int* predicted, int n) {
    const int lane = lanes[slot()];
    const size_t logits = (size_t)slot() * CAPACITY * LOGITS, samples = (size_t)slot() * CAPACITY;
    loss_and_gradient<LOGITS>(kinds[lane], constants[lane], class_weights + lane * CLASS_WEIGHTS, is_mean[lane], z + logits,
                             targets + samples, p + logits, dz + logits, values + samples, predicted + samples, n);
}

KERNEL loss_value(const int* lanes, const Kind* kinds, const Constants* constants, const real* class_weights, const real* z,
                  const int* targets, real* p, real* seen, real* values, real* confidence, int* predicted, int n) {
    const int lane = lanes[slot()];
    const size_t logits = (size_t)slot() * CAPACITY * LOGITS, samples = (size_t)slot() * CAPACITY;
    loss_alone<LOGITS>(kinds[lane], constants[lane], class_weights + lane * CLASS_WEIGHTS, z + logits, targets + samples, p + logits,
                      seen + logits, values + samples, confidence + samples, predicted + samples, n);
}

KERNEL tally_batch(const int* lanes, const real* values, const int* predicted, const int* targets, double* losses, int* right, int* ended,
                   int steps, int step, int n) {
    const int lane = lanes[slot()];
    const size_t samples = (size_t)slot() * CAPACITY, place = (size_t)lane * steps + step;
    tally_step(values + samples, predicted + samples, targets + samples, losses + place, right + place, ended + lane, step, n);
}

// sums (K, 3) of losses, correct predictions and confidences; counts (K, classes) of the predictions, hits (K, classes) of
// those that are right. Each launch adds to them.
KERNEL tally_rows(const int* lanes, const real* values, const real* confidence, const int* predicted, const int* targets, double* sums,
                  int* counts, int* hits, int classes, int n) {
    const int lane = lanes[slot()];
    const size_t samples = (size_t)slot() * CAPACITY;
    double loss = 0, right = 0, sure = 0;
    for (int at = threadIdx.x; at < n; at += blockDim.x) {
        loss += values[samples + at];
        const int guess = predicted[samples + at];
        right += guess == targets[samples + at];
        sure += confidence[samples + at];
        atomicAdd(&counts[lane * classes + guess], 1);
        if (guess == targets[samples + at]) atomicAdd(&hits[lane * classes + guess], 1);
    }
    loss = block_sum(loss);
    right = block_sum(right);
    sure = block_sum(sure);
    if (threadIdx.x == 0) {
        sums[lane * 3] += loss;
        sums[lane * 3 + 1] += right;
        sums[lane * 3 + 2] += sure;
    }
}
