// Kernels after the backward pass: watch the gradient, take its norm for clipping, update the weights.
//
// theta, gradient, first and second (K, size); rules (K), rates (K, rated), corrections (K, steps); parts (K, NORM_PARTS). A lane that ended before this step,
// according to `ended` (K), stays unchanged. Grid: (any number, L); that of `watch` is (layers, L).
// Bounds: size below 2^31. The functions called are in `update.cuh`.
#include "update.cuh"

KERNEL watch(const int* lanes, const int* ended, int step, const real* gradient, int size, const int* edges, int layers, const Rates* rates,
             int rated, int columns, int column, double* squares, int* counts) {
    const int lane = lanes[slot()];
    if (ended[lane] < step) return;
    const size_t place = (size_t)lane * columns + column;
    watch_gradient(gradient + (size_t)lane * size, edges, layers, rates_at(rates, rated, lane, step), squares + place * layers, counts + place * 2);
}

KERNEL square(const int* lanes, const int* ended, int step, const Rule* rules, const real* gradient, int size, double* parts) {
    const int lane = lanes[slot()];
    if (ended[lane] <= step || !(rules[lane].clip_norm > 0)) return;
    square_parts(rules[lane], gradient + (size_t)lane * size, size, parts + (size_t)lane * NORM_PARTS);
}

KERNEL update(const int* lanes, const int* ended, int step, int steps, const Rule* rules, const Rates* rates, int rated, const Corrections* corrections,
              const real* gradient, const double* parts, real* first, real* second, real* theta, int size, int output_start) {
    const int lane = lanes[slot()];
    if (ended[lane] <= step) return;
    const size_t of = (size_t)lane * size;
    update_weights(rules[lane], rates_at(rates, rated, lane, step), corrections[(size_t)lane * steps + step], gradient + of, parts + (size_t)lane * NORM_PARTS,
                   first + of, second + of, theta + of, size, output_start);
}
