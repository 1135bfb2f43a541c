// A whole network as a list of layers, each addressed by its number.
//
// By -D: STAGES, the layers from the input on with their shapes, such as Conv<1,32,32,6,5,8>,Pool<6,28,28,2>; CAPACITY, the samples that an array
// of a batch holds. Shapes: arrays of a batch are (L, CAPACITY, ...), of which n samples are used, by slot; theta and gradient are one lane's
// flat vector (SIZE), partial one slot's partial sums. Formulas and bounds: those of the layers' headers.
#pragma once
#include "conv.cuh"
#include "strided.cuh"
#include "dense.cuh"
#include "activations.cuh"
#include "dropout.cuh"
#include "pool.cuh"
#include "update.cuh"

// Whether a layer draws random numbers.
template <class Stage>
constexpr bool draws = false;
template <int COUNT, int LAYER, int INDEX>
constexpr bool draws<Dropout<COUNT, LAYER, INDEX>> = true;

// The layers from number INDEX on; their parameters start at START and their partial sums at PARTIAL_START. Here: none.
template <int INDEX, int START, int PARTIAL_START, class... Stages>
struct Chain {
    static constexpr int LAYERS = INDEX, SIZE = START, OUTPUT_START = -1;
    static __device__ void forward(int, const real*, const real*, real*, int, const Draw&) {}
    static __device__ void input_gradient(int, const real*, const real*, const real*, const real*, real*, int, const Draw&) {}
    static __device__ void parameter_gradient(int, const real*, const real*, real*, int) {}
    static __device__ void add(const real*, real*, int) {}
};

template <int INDEX, int START, int PARTIAL_START, class Stage, class... Rest>
struct Chain<INDEX, START, PARTIAL_START, Stage, Rest...> {
    using Next = Chain<INDEX + 1, START + Stage::PARAMETERS, PARTIAL_START + Stage::SHARES * Stage::PARAMETERS, Rest...>;
    static constexpr int LAYERS = Next::LAYERS, SIZE = Next::SIZE;
    // Where the last layer with parameters starts.
    static constexpr int OUTPUT_START = Stage::PARAMETERS && Next::OUTPUT_START < 0 ? START : Next::OUTPUT_START;

    static __device__ size_t in() { return (size_t)slot() * CAPACITY * Stage::IN; }
    static __device__ size_t out() { return (size_t)slot() * CAPACITY * Stage::OUT; }

    static __device__ void forward(int layer, const real* x, const real* theta, real* y, int n, const Draw& draw) {
        if (layer != INDEX)
            Next::forward(layer, x, theta, y, n, draw);
        else if constexpr (draws<Stage>)
            Stage::apply(x + in(), y + out(), n, draw);
        else
            Stage::forward(x + in(), theta + START, y + out(), n);
    }

    static __device__ void input_gradient(int layer, const real* x, const real* y, const real* dy, const real* theta, real* dx, int n,
                                          const Draw& draw) {
        if (layer != INDEX)
            Next::input_gradient(layer, x, y, dy, theta, dx, n, draw);
        else if constexpr (draws<Stage>)
            Stage::apply(dy + out(), dx + in(), n, draw);
        else
            Stage::input_gradient(x + in(), y + out(), dy + out(), theta + START, dx + in(), n);
    }

    static __device__ void parameter_gradient(int layer, const real* x, const real* dy, real* partial, int n) {
        if (layer == INDEX)
            Stage::parameter_gradient(x + in(), dy + out(), partial + PARTIAL_START, n);
        else
            Next::parameter_gradient(layer, x, dy, partial, n);
    }

    // Adds up the partial sums of all layers.
    static __device__ void add(const real* partial, real* gradient, int n) {
        if constexpr (Stage::PARAMETERS > 0)
            add_shares(partial + PARTIAL_START, Stage::SHARES, Stage::PARAMETERS, Stage::WEIGHTS, gradient + START, n);
        Next::add(partial, gradient, n);
    }
};

using Network = Chain<0, 0, 0, STAGES>;
