// Element-wise layers: one struct per activation, named by `ablate/problem/activations.py`, and division by a constant.
//
// Shapes: x and y (n, COUNT) of one lane; a thread computes one element. Bounds: n COUNT below 2^31. DIVISORS, by -D: the constants.
// Formulas: relu' = [y > 0], sigmoid' = y (1 - y), tanh' = 1 - y²; a straight-through ReLU passes the error unchanged.
#pragma once
#include "mistakes.cuh"

struct Relu {
    static constexpr bool IS_ACTIVATION = true;
    // NaN stays NaN: it fails the comparison.
    static __device__ real value(real x) { return x < 0 ? real(0) : x; }
    static __device__ real backward(real, real y, real error) { return y > 0 ? error : real(0); }
};

struct StraightThroughRelu {
    static constexpr bool IS_ACTIVATION = true;
    static __device__ real value(real x) { return Relu::value(x); }
    static __device__ real backward(real, real, real error) { return error; }
};

struct Sigmoid {
    static constexpr bool IS_ACTIVATION = true;
    static __device__ real value(real x) { return 1 / (1 + exp(-x)); }
    static __device__ real backward(real, real y, real error) { return error * y * (1 - y); }
};

struct Tanh {
    static constexpr bool IS_ACTIVATION = true;
    static __device__ real value(real x) { return tanh(x); }
    static __device__ real backward(real, real y, real error) { return error * (1 - y * y); }
};

#ifndef DIVISORS
#define DIVISORS 1
#endif
__host__ __device__ constexpr double divisor(int index) {
    constexpr double divisors[] = {DIVISORS};
    return divisors[index];
}

template <int INDEX>
struct Divide {
    static constexpr bool IS_ACTIVATION = false;
    static constexpr real BY = real(divisor(INDEX));
    static __device__ real value(real x) { return x / BY; }
    static __device__ real backward(real, real, real error) { return error / BY; }
};

template <class Function, int COUNT>
struct Elementwise {
    static constexpr int IN = COUNT, OUT = COUNT, PARAMETERS = 0, SHARES = 0;

    static __device__ void forward(const real* x, const real*, real* y, int n) {
        for (int at = thread(); at < n * COUNT; at += threads()) y[at] = Function::value(x[at]);
    }

    static __device__ void input_gradient(const real* x, const real* y, const real* dy, const real*, real* dx, int n) {
        for (int at = thread(); at < n * COUNT; at += threads()) dx[at] = BACKWARD::through<Function>(x[at], y[at], dy[at]);
    }

    static __device__ void parameter_gradient(const real*, const real*, real*, int) {}
};
