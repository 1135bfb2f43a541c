// The clear kernels of one layer, a launch each: forward, the gradient of its input, that of its parameters.
//
// STAGE, by -D: the layer with its shapes, Conv<1,32,32,6,5,8> say; the formulas are in the headers. Arrays of a batch are (L, CAPACITY,
// ...), by -D, of which the n samples of this batch are used; theta and gradients (K, size), the layer's parameters from number `start` on; partial sums
// (L, partials, ...), the layer's from `partial_start` on. Grid: (any number, L), blocks of THREADS.
// Bounds: n times a sample's numbers below 2^31.
#include "conv.cuh"
#include "dense.cuh"
#include "elementwise.cuh"
#include "pool.cuh"

using Stage = STAGE;

KERNEL forward(const int* lanes, const real* x, const real* theta, int size, int start, real* y, int n) {
    Stage::forward(x + (size_t)slot() * CAPACITY * Stage::IN, theta + (size_t)lanes[slot()] * size + start, y + (size_t)slot() * CAPACITY * Stage::OUT, n);
}

KERNEL input_gradient(const int* lanes, const real* x, const real* y, const real* dy, const real* theta, int size, int start, real* dx, int n) {
    const size_t in = (size_t)slot() * CAPACITY * Stage::IN, out = (size_t)slot() * CAPACITY * Stage::OUT;
    Stage::input_gradient(x + in, y + out, dy + out, theta + (size_t)lanes[slot()] * size + start, dx + in, n);
}

KERNEL parameter_gradient(const real* x, const real* dy, real* partial, int partials, int partial_start, int n) {
    Stage::parameter_gradient(x + (size_t)slot() * CAPACITY * Stage::IN, dy + (size_t)slot() * CAPACITY * Stage::OUT,
                              partial + (size_t)slot() * partials + partial_start, n);
}
