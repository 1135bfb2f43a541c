// The hooks of the backward pass: healthy, and with the known mistakes. `ablate/problem/mistakes.py` names the structs.
//
// BACKWARD, by -D: the struct with which the kernels are compiled; the lanes of an engine share their mistake.
#pragma once
#include "common.cuh"

#ifndef BACKWARD
#define BACKWARD HealthyBackward
#endif

struct HealthyBackward {
    // The error of an element-wise layer with respect to its input.
    template <class Function>
    static __device__ real through(real x, real y, real error) {
        return Function::backward(x, y, error);
    }
    // A parameter's gradient from its sum over a batch of n and from its gradient for the previous batch.
    static __device__ real gradient(real sum, real before, bool is_bias, int n) { return sum; }
};

struct MissingActivationDerivative : HealthyBackward {
    template <class Function>
    static __device__ real through(real x, real y, real error) {
        return Function::IS_ACTIVATION ? error : Function::backward(x, y, error);
    }
};

struct MissingDivisor : HealthyBackward {
    template <class Function>
    static __device__ real through(real x, real y, real error) {
        return Function::IS_ACTIVATION ? Function::backward(x, y, error) : error;
    }
};

struct BiasGradient : HealthyBackward {
    static __device__ real gradient(real sum, real before, bool is_bias, int n) { return is_bias ? sum / n : sum; }
};

struct StaleGradients : HealthyBackward {
    static __device__ real gradient(real sum, real before, bool is_bias, int n) { return before + sum; }
};
