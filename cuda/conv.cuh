// Valid convolution, stride 1: forward, and the gradients of input, weights and biases.
//
// Shapes: x (n, IN_MAPS, IN_HEIGHT, IN_WIDTH), y (n, OUT_MAPS, OUT_HEIGHT, OUT_WIDTH) with OUT_HEIGHT = IN_HEIGHT - SIZE + 1, the width alike;
// theta: weights (OUT_MAPS, IN_MAPS, SIZE, SIZE), then biases (OUT_MAPS). All of one lane.
// A thread computes several maps at one place, so that a pixel is read once for all of them. Gradients of weights are
// sums over the batch: SHARES partial sums of neighbouring samples, `partial` (SHARES, PARAMETERS), which `update.cu` adds up.
// Bounds: n times a sample's numbers below 2^31. Formulas: y = b + sum over maps and taps of w x; the gradients by the chain rule.
#pragma once
#include "common.cuh"

template <int IN_MAPS, int IN_HEIGHT, int IN_WIDTH, int OUT_MAPS, int SIZE, int SHARES_>
struct Conv {
    static constexpr int OUT_HEIGHT = IN_HEIGHT - SIZE + 1, OUT_WIDTH = IN_WIDTH - SIZE + 1, TAPS = SIZE * SIZE;
    static constexpr int IN_PLACES = IN_HEIGHT * IN_WIDTH, OUT_PLACES = OUT_HEIGHT * OUT_WIDTH;
    static constexpr int IN = IN_MAPS * IN_PLACES, OUT = OUT_MAPS * OUT_PLACES;
    static constexpr int WEIGHTS = OUT_MAPS * IN_MAPS * TAPS, PARAMETERS = WEIGHTS + OUT_MAPS, SHARES = SHARES_;

    static __device__ void forward(const real* x, const real* theta, real* y, int n) {
        constexpr int MAPS = together(OUT_MAPS, 8), GROUPS = OUT_MAPS / MAPS;
        for (int at = thread(); at < n * GROUPS * OUT_PLACES; at += threads()) {
            const int place = at % OUT_PLACES, to = at / OUT_PLACES % GROUPS * MAPS, sample = at / (OUT_PLACES * GROUPS);
            const real* window = x + (size_t)sample * IN + place / OUT_WIDTH * IN_WIDTH + place % OUT_WIDTH;
            const real* w = theta + to * IN_MAPS * TAPS;
            real sum[MAPS] = {};
            for (int from = 0; from < IN_MAPS; ++from)
                for (int i = 0; i < SIZE; ++i)
                    for (int j = 0; j < SIZE; ++j) {
                        const real pixel = window[from * IN_PLACES + i * IN_WIDTH + j];
                        for (int map = 0; map < MAPS; ++map) sum[map] += w[(map * IN_MAPS + from) * TAPS + i * SIZE + j] * pixel;
                    }
            for (int map = 0; map < MAPS; ++map)
                y[(size_t)sample * OUT + (to + map) * OUT_PLACES + place] = sum[map] + theta[WEIGHTS + to + map];
        }
    }

    static __device__ void input_gradient(const real*, const real*, const real* dy, const real* theta, real* dx, int n) {
        constexpr int MAPS = together(IN_MAPS, 8), GROUPS = IN_MAPS / MAPS;
        for (int at = thread(); at < n * GROUPS * IN_PLACES; at += threads()) {
            const int column = at % IN_WIDTH, row = at / IN_WIDTH % IN_HEIGHT;
            const int from = at / IN_PLACES % GROUPS * MAPS, sample = at / (IN_PLACES * GROUPS);
            real sum[MAPS] = {};
            for (int to = 0; to < OUT_MAPS; ++to)
                for (int i = max(0, row - OUT_HEIGHT + 1); i <= min(SIZE - 1, row); ++i)
                    for (int j = max(0, column - OUT_WIDTH + 1); j <= min(SIZE - 1, column); ++j) {
                        const real error = dy[(size_t)sample * OUT + to * OUT_PLACES + (row - i) * OUT_WIDTH + column - j];
                        const real* w = theta + (to * IN_MAPS + from) * TAPS + i * SIZE + j;
                        for (int map = 0; map < MAPS; ++map) sum[map] += w[map * TAPS] * error;
                    }
            for (int map = 0; map < MAPS; ++map)
                dx[(size_t)sample * IN + (from + map) * IN_PLACES + row * IN_WIDTH + column] = sum[map];
        }
    }

    static __device__ void parameter_gradient(const real* x, const real* dy, real* partial, int n) {
        weight_gradient(x, dy, partial, n);
        bias_gradient(dy, partial + WEIGHTS, n);
    }

    // A thread takes one row of taps, between one input map and several output maps.
    static __device__ void weight_gradient(const real* x, const real* dy, real* partial, int n) {
        constexpr int MAPS = together(OUT_MAPS, SIZE < 8 ? 8 : SIZE < 32 ? 64 / SIZE : 1), GROUPS = OUT_MAPS / MAPS;
        constexpr int ROWS = GROUPS * IN_MAPS * SIZE;
        for (int at = thread(); at < SHARES * ROWS; at += threads()) {
            const int i = at % SIZE, from = at / SIZE % IN_MAPS, to = at / (SIZE * IN_MAPS) % GROUPS * MAPS, share = at / ROWS;
            real sum[MAPS][SIZE] = {};
            for (int sample = first_of(share, n); sample < first_of(share + 1, n); ++sample)
                for (int place = 0; place < OUT_PLACES; ++place) {
                    const real* pixels = x + (size_t)sample * IN + from * IN_PLACES + (place / OUT_WIDTH + i) * IN_WIDTH + place % OUT_WIDTH;
                    for (int map = 0; map < MAPS; ++map) {
                        const real error = dy[(size_t)sample * OUT + (to + map) * OUT_PLACES + place];
                        for (int j = 0; j < SIZE; ++j) sum[map][j] += pixels[j] * error;
                    }
                }
            for (int map = 0; map < MAPS; ++map)
                for (int j = 0; j < SIZE; ++j)
                    partial[share * PARAMETERS + ((to + map) * IN_MAPS + from) * TAPS + i * SIZE + j] = sum[map][j];
        }
    }

    static __device__ void bias_gradient(const real* dy, real* partial, int n) {
        for (int at = thread(); at < SHARES * OUT_MAPS; at += threads()) {
            const int map = at % OUT_MAPS, share = at / OUT_MAPS;
            real sum = 0;
            for (int sample = first_of(share, n); sample < first_of(share + 1, n); ++sample)
                for (int place = 0; place < OUT_PLACES; ++place) sum += dy[(size_t)sample * OUT + map * OUT_PLACES + place];
            partial[share * PARAMETERS + map] = sum;
        }
    }

    static __device__ int first_of(int share, int n) { return share * n / SHARES; }
};
