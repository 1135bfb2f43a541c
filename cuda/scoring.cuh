// What is counted of the outputs besides the loss, for each kind of targets. `ablate/problem/scoring.py` names the structs and has the
// formulas.
//
// SCORING, by -D: the struct with which the kernels are compiled; the lanes of an engine share their data set. A sample has WIDTH<UNITS>
// targets of the type Target. TRAINED tallies are taken of every batch in training; `tested` has as many as the kernel is asked for.
// `facts` (rows, UNITS) are what the scorer knows of the set of samples.
#pragma once
#include "common.cuh"

#ifndef SCORING
#define SCORING Classes
#endif

// One class a sample, an int. Predictions are made where the loss is computed, and counted by class.
struct Classes {
    using Target = int;
    static constexpr bool IS_CLASS = true;
    static constexpr int TRAINED = 1;
    template <int UNITS>
    static constexpr int WIDTH = 1;

    // `at` is the sample, `m` the tally.
    template <int UNITS>
    static __device__ double trained(int, int at, const int* predicted, const Target* targets, const real*, const double*) {
        return predicted[at] == targets[at];
    }
    template <int UNITS>
    static __device__ double tested(int m, int at, const int* predicted, const Target* targets, const real*, const real* confidence,
                                    const double*) {
        return m == 0 ? double(predicted[at] == targets[at]) : double(confidence[at]);
    }
    // Predictions by class, then those of them that are right.
    static __device__ void count(int* counts, int counted, int at, const int* predicted, const Target* targets) {
        atomicAdd(&counts[predicted[at]], 1);
        if (predicted[at] == targets[at]) atomicAdd(&counts[counted / 2 + predicted[at]], 1);
    }
    static __device__ real weight(const real* class_weights, const Target* target) { return class_weights[*target]; }
};

// Numbers: facts are the weights of squared errors in R² and in RMSE, and the means of the targets.
struct Numbers {
    using Target = real;
    static constexpr bool IS_CLASS = false;
    static constexpr int TRAINED = 2;
    template <int UNITS>
    static constexpr int WIDTH = UNITS;

    template <int UNITS>
    static __device__ double trained(int m, int at, const int*, const Target* targets, const real* p, const double* facts) {
        double sum = 0;
        for (int c = 0; c < UNITS; ++c) {
            const double error = double(p[(size_t)at * UNITS + c]) - targets[(size_t)at * UNITS + c];
            sum += facts[m * UNITS + c] * error * error;
        }
        return sum;
    }
    template <int UNITS>
    static __device__ double tested(int m, int at, const int* predicted, const Target* targets, const real* p, const real*,
                                    const double* facts) {
        if (m < TRAINED) return trained<UNITS>(m, at, predicted, targets, p, facts);
        const int c = (m - TRAINED) % UNITS;
        const double apart = p[(size_t)at * UNITS + c] - facts[2 * UNITS + c];
        return m < TRAINED + UNITS ? apart : apart * apart;
    }
    static __device__ void count(int*, int, int, const int*, const Target*) {}
    static __device__ real weight(const real*, const Target*) { return 1; }
};

// Labels that are 0 or 1 each.
struct Labels {
    using Target = real;
    static constexpr bool IS_CLASS = false;
    static constexpr int TRAINED = 2;
    template <int UNITS>
    static constexpr int WIDTH = UNITS;

    static __device__ bool is_there(real value) { return value > real(0.5); }
    template <int UNITS>
    static __device__ double trained(int m, int at, const int*, const Target* targets, const real* p, const double*) {
        int right = 0;
        for (int c = 0; c < UNITS; ++c) right += is_there(p[(size_t)at * UNITS + c]) == is_there(targets[(size_t)at * UNITS + c]);
        return m == 0 ? right : right == UNITS;
    }
    template <int UNITS>
    static __device__ double tested(int m, int at, const int* predicted, const Target* targets, const real* p, const real*,
                                    const double* facts) {
        if (m < TRAINED) return trained<UNITS>(m, at, predicted, targets, p, facts);
        const int kind = (m - TRAINED) / UNITS, c = (m - TRAINED) % UNITS;
        const bool answered = is_there(p[(size_t)at * UNITS + c]), given = is_there(targets[(size_t)at * UNITS + c]);
        return kind == 0 ? answered && given : kind == 1 ? answered : given;
    }
    static __device__ void count(int*, int, int, const int*, const Target*) {}
    static __device__ real weight(const real*, const Target*) { return 1; }
};

using Target = SCORING::Target;
template <int UNITS>
constexpr int WIDTH = SCORING::WIDTH<UNITS>;
