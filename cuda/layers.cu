// The reference kernels of a network's layers, one launch per operation: forward, gradient of the input, gradient of the parameters.
//
// `layer` counts the layers from the input on. `keys` (K) and `step` are what dropout draws from (`dropout.cuh`). theta and gradient are (K, SIZE), partial (L, partials); the other shapes, and
// what is given by -D, are those of `network.cuh`. Grid: (any number, L), blocks of THREADS. Bounds: n times a sample's numbers below 2^31.
#include "network.cuh"

KERNEL forward(const int* lanes, int layer, const real* x, const real* theta, real* y, int n, const unsigned long long* keys, int step) {
    const int lane = lanes[slot()];
    Network::forward(layer, x, theta + (size_t)lane * Network::SIZE, y, n, Draw{keys[lane], step});
}

KERNEL input_gradient(const int* lanes, int layer, const real* x, const real* y, const real* dy, const real* theta, real* dx, int n,
                      const unsigned long long* keys, int step) {
    const int lane = lanes[slot()];
    Network::input_gradient(layer, x, y, dy, theta + (size_t)lane * Network::SIZE, dx, n, Draw{keys[lane], step});
}

KERNEL parameter_gradient(int layer, const real* x, const real* dy, real* partial, int partials, int n) {
    Network::parameter_gradient(layer, x, dy, partial + (size_t)slot() * partials, n);
}

KERNEL add_partial(const int* lanes, const real* partial, int partials, real* gradient, int n) {
    Network::add(partial + (size_t)slot() * partials, gradient + (size_t)lanes[slot()] * Network::SIZE, n);
}
