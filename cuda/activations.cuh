// Activations: one struct each, named by `ablate/problem/activations.py`, and division by a constant; they work element by element, but for
// the softmax over a layer's units.
//
// Shapes: x and y (n, COUNT) of one lane; a thread computes one element. Bounds: n COUNT below 2^31. NUMBERS, by -D: what layers depend on,
// such as divisors and slopes; INDEX is a layer's place among them.
// Formulas: `ablate/problem/activations.py`, relu' = [y > 0] and so on; a straight-through ReLU passes the error unchanged.
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

struct Identity {
    static constexpr bool IS_ACTIVATION = true;
    static __device__ real value(real x) { return x; }
    static __device__ real backward(real, real, real error) { return error; }
};

struct Selu {
    static constexpr bool IS_ACTIVATION = true;
    static constexpr real SCALE = real(1.0507009873554805), BOUND = real(1.0507009873554805 * 1.6732632423543772);
    static __device__ real value(real x) { return x > 0 ? SCALE * x : BOUND * expm1(x); }
    static __device__ real backward(real, real y, real error) { return error * (y > 0 ? SCALE : y + BOUND); }
};

struct Softplus {
    static constexpr bool IS_ACTIVATION = true;
    static __device__ real value(real x) { return (x > 0 ? x : real(0)) + log1p(exp(-fabs(x))); }
    static __device__ real backward(real, real y, real error) { return error * -expm1(-y); }
};

struct Softsign {
    static constexpr bool IS_ACTIVATION = true;
    static __device__ real value(real x) { return x / (1 + fabs(x)); }
    static __device__ real backward(real, real y, real error) { return error * (1 - fabs(y)) * (1 - fabs(y)); }
};

#ifndef NUMBERS
#define NUMBERS 1
#endif
__host__ __device__ constexpr double number(int index) {
    constexpr double numbers[] = {NUMBERS};
    return numbers[index];
}

template <int INDEX>
struct LeakyRelu {
    static constexpr bool IS_ACTIVATION = true;
    static constexpr real SLOPE = real(number(INDEX));
    static __device__ real value(real x) { return x > 0 ? x : SLOPE * x; }
    static __device__ real backward(real, real y, real error) { return y > 0 ? error : SLOPE * error; }
};

template <int INDEX>
struct Elu {
    static constexpr bool IS_ACTIVATION = true;
    static constexpr real ALPHA = real(number(INDEX));
    static __device__ real value(real x) { return x > 0 ? x : ALPHA * expm1(x); }
    static __device__ real backward(real, real y, real error) { return y > 0 ? error : error * (y + ALPHA); }
};

template <int INDEX>
struct Divide {
    static constexpr bool IS_ACTIVATION = false;
    static constexpr real BY = real(number(INDEX));
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

// The softmax over UNITS numbers, PLACES apart: all of a vector, or the maps at one pixel; a thread computes one of n PLACES.
template <int UNITS, int PLACES>
struct SoftmaxUnits {
    static constexpr bool IS_ACTIVATION = true;
    static constexpr int IN = UNITS * PLACES, OUT = IN, PARAMETERS = 0, SHARES = 0;

    static __device__ size_t first_of(int at) { return (size_t)(at / PLACES) * IN + at % PLACES; }

    static __device__ void forward(const real* x, const real*, real* y, int n) {
        for (int at = thread(); at < n * PLACES; at += threads()) {
            const real* from = x + first_of(at);
            real largest = from[0], total = 0;
            for (int unit = 1; unit < UNITS; ++unit) {
                const real value = from[unit * PLACES];
                largest = value > largest || value != value ? value : largest;
            }
            for (int unit = 0; unit < UNITS; ++unit) total += exp(from[unit * PLACES] - largest);
            for (int unit = 0; unit < UNITS; ++unit) y[first_of(at) + unit * PLACES] = exp(from[unit * PLACES] - largest) / total;
        }
    }

    // The whole Jacobian: y (dy - Σ dy y), with the sum in place of x.
    static __device__ real backward(real sum, real y, real error) { return y * (error - sum); }

    static __device__ void input_gradient(const real*, const real* y, const real* dy, const real*, real* dx, int n) {
        for (int at = thread(); at < n * PLACES; at += threads()) {
            const size_t first = first_of(at);
            real sum = 0;
            for (int unit = 0; unit < UNITS; ++unit) sum += dy[first + unit * PLACES] * y[first + unit * PLACES];
            for (int unit = 0; unit < UNITS; ++unit) {
                const size_t place = first + unit * PLACES;
                dx[place] = BACKWARD::through<SoftmaxUnits>(sum, y[place], dy[place]);
            }
        }
    }

    static __device__ void parameter_gradient(const real*, const real*, real*, int) {}
};
