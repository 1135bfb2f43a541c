// Kernels around the network: gather a batch, compute its loss with and without gradient, and sum it up.
//
// SAMPLE, FITTED, LOGITS and CAPACITY, by -D: the lengths of a row, of the network's input and of the logits, and the samples that an array
// holds. Arrays of a batch are (L, CAPACITY, ...), of which n samples are used; `kinds`, `constants`, `class_weights`, `is_mean`, `ended`
// and the sums are (K, ...). Grid: (any number, L); that of the tallies is (1, L). Bounds: n FITTED and n LOGITS below 2^31. The functions
// called are in `batch.cuh` and `objective.cuh`.
#include "batch.cuh"

KERNEL gather_rows(const int* lanes, const real* rows, const Target* known, const int* fit, const int* orders, const int* order_of, int count,
                   int first, real* x, Target* targets, int n) {
    gather<SAMPLE, FITTED, LOGITS>(rows, known, fit, orders + (size_t)order_of[lanes[slot()]] * count + first, x + (size_t)slot() * CAPACITY * FITTED,
                           targets + (size_t)slot() * CAPACITY * WIDTH<LOGITS>, n);
}

KERNEL loss_gradient(const int* lanes, const Kind* kinds, const Constants* constants, const real* class_weights, const int* is_mean,
                     const real* z, const Target* targets, real* p, real* dz, real* values, int* predicted, int n) {
    const int lane = lanes[slot()];
    const size_t logits = (size_t)slot() * CAPACITY * LOGITS, samples = (size_t)slot() * CAPACITY;
    loss_and_gradient<LOGITS>(kinds[lane], constants[lane], class_weights + lane * CLASS_WEIGHTS, is_mean[lane], z + logits,
                             targets + samples * WIDTH<LOGITS>, p + logits, dz + logits, values + samples, predicted + samples, n);
}

KERNEL loss_value(const int* lanes, const Kind* kinds, const Constants* constants, const real* class_weights, const real* z,
                  const Target* targets, real* p, real* seen, real* values, real* confidence, int* predicted, int n) {
    const int lane = lanes[slot()];
    const size_t logits = (size_t)slot() * CAPACITY * LOGITS, samples = (size_t)slot() * CAPACITY;
    loss_alone<LOGITS>(kinds[lane], constants[lane], class_weights + lane * CLASS_WEIGHTS, z + logits, targets + samples * WIDTH<LOGITS>, p + logits,
                      seen + logits, values + samples, confidence + samples, predicted + samples, n);
}

KERNEL tally_batch(const int* lanes, const real* values, const int* predicted, const Target* targets, const real* p, const double* facts,
                   double* losses, double* tallies, int* ended, int steps, int step, int n) {
    const int lane = lanes[slot()];
    const size_t samples = (size_t)slot() * CAPACITY, place = (size_t)lane * steps + step;
    tally_step<LOGITS>(values + samples, predicted + samples, targets + samples * WIDTH<LOGITS>, p + samples * LOGITS, facts, losses + place,
                       tallies + place * SCORING::TRAINED, ended + lane, step, n);
}

// sums (K, count) of losses and tallies; counts (K, counted) of the predictions and of those that are right, by class, where there are
// classes. Each launch adds to them.
KERNEL tally_rows(const int* lanes, const real* values, const real* confidence, const int* predicted, const Target* targets, const real* p,
                  const double* facts, double* sums, int count, int* counts, int counted, int n) {
    const int lane = lanes[slot()];
    const size_t samples = (size_t)slot() * CAPACITY;
    for (int at = threadIdx.x; at < n; at += blockDim.x) SCORING::count(counts + lane * counted, counted, at, predicted + samples, targets + samples * WIDTH<LOGITS>);
    for (int m = 0; m < count; ++m) {
        double sum = 0;
        for (int at = threadIdx.x; at < n; at += blockDim.x)
            sum += m == 0 ? double(values[samples + at])
                          : SCORING::tested<LOGITS>(m - 1, at, predicted + samples, targets + samples * WIDTH<LOGITS>, p + samples * LOGITS,
                                                    confidence + samples, facts);
        sum = block_sum(sum);
        if (threadIdx.x == 0) sums[lane * count + m] += sum;
    }
}
