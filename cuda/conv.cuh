// Valid convolution, stride 1: forward, and the gradients of input, weights and biases.
//
// Shapes: x (n, IN_MAPS, IN_HEIGHT, IN_WIDTH), y (n, OUT_MAPS, OUT_HEIGHT, OUT_WIDTH) with OUT_HEIGHT = IN_HEIGHT - SIZE + 1, the width alike;
// theta: weights (OUT_MAPS, IN_MAPS, SIZE, SIZE), then biases (OUT_MAPS). All of one lane.
// A thread computes several maps at several columns, so that a pixel or a weight is read once for all of them. Gradients of weights are
// sums over the batch: SHARES partial sums over neighbouring samples, `partial` (SHARES, PARAMETERS), which `Network::add` adds up.
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
        constexpr int COLUMNS = together(OUT_WIDTH, 4), PIECES = OUT_PLACES / COLUMNS;
        for (int at = thread(); at < n * GROUPS * PIECES; at += threads()) {
            const int place = at % PIECES * COLUMNS, to = at / PIECES % GROUPS * MAPS, sample = at / (PIECES * GROUPS);
            const real* window = x + (size_t)sample * IN + place / OUT_WIDTH * IN_WIDTH + place % OUT_WIDTH;
            const real* w = theta + to * IN_MAPS * TAPS;
            real sum[MAPS][COLUMNS] = {};
#pragma unroll 1
            for (int row = 0; row < IN_MAPS * SIZE; ++row) {
                const int from = row / SIZE, i = row % SIZE;
                real pixels[SIZE + COLUMNS - 1];
#pragma unroll
                for (int j = 0; j < SIZE + COLUMNS - 1; ++j) pixels[j] = window[from * IN_PLACES + i * IN_WIDTH + j];
#pragma unroll
                for (int j = 0; j < SIZE; ++j)
                    for (int map = 0; map < MAPS; ++map) {
                        const real weight = w[(map * IN_MAPS + from) * TAPS + i * SIZE + j];
                        for (int column = 0; column < COLUMNS; ++column) sum[map][column] += weight * pixels[j + column];
                    }
            }
            for (int map = 0; map < MAPS; ++map)
                for (int column = 0; column < COLUMNS; ++column)
                    y[(size_t)sample * OUT + (to + map) * OUT_PLACES + place + column] = sum[map][column] + theta[WEIGHTS + to + map];
        }
    }

    static __device__ void input_gradient(const real*, const real*, const real* dy, const real* theta, real* dx, int n) {
        constexpr int MAPS = together(IN_MAPS, 8), GROUPS = IN_MAPS / MAPS;
        constexpr int COLUMNS = together(IN_WIDTH, 4), PIECES = IN_PLACES / COLUMNS;
        for (int at = thread(); at < n * GROUPS * PIECES; at += threads()) {
            const int place = at % PIECES * COLUMNS, row = place / IN_WIDTH, first = place % IN_WIDTH;
            const int from = at / PIECES % GROUPS * MAPS, sample = at / (PIECES * GROUPS);
            real sum[MAPS][COLUMNS] = {};
#pragma unroll 1
            for (int to = 0; to < OUT_MAPS; ++to)
#pragma unroll 1
                for (int i = max(0, row - OUT_HEIGHT + 1); i <= min(SIZE - 1, row); ++i)
                    add_row(dy + (size_t)sample * OUT + to * OUT_PLACES + (row - i) * OUT_WIDTH,
                            theta + (to * IN_MAPS + from) * TAPS + i * SIZE, first, sum);
            for (int map = 0; map < MAPS; ++map)
                for (int column = 0; column < COLUMNS; ++column)
                    dx[(size_t)sample * IN + (from + map) * IN_PLACES + place + column] = sum[map][column];
        }
    }

    // Adds the contribution of a row of errors and a row of taps to some columns of several input maps, from column `first` on.
    template <int MAPS, int COLUMNS>
    static __device__ void add_row(const real* errors, const real* w, int first, real (&sum)[MAPS][COLUMNS]) {
        real near[SIZE + COLUMNS - 1];
#pragma unroll
        for (int j = 0; j < SIZE + COLUMNS - 1; ++j) {
            const int column = first + j - (SIZE - 1);
            near[j] = column >= 0 && column < OUT_WIDTH ? errors[column] : real(0);
        }
#pragma unroll
        for (int j = 0; j < SIZE; ++j)
            for (int map = 0; map < MAPS; ++map) {
                const real weight = w[map * TAPS + j];
                for (int column = 0; column < COLUMNS; ++column) sum[map][column] += weight * near[column + SIZE - 1 - j];
            }
    }

    static __device__ void parameter_gradient(const real* x, const real* dy, real* partial, int n) {
        weight_gradient(x, dy, partial, n);
        bias_gradient(dy, partial + WEIGHTS, n);
    }

    // A thread takes one row of taps between one input map and several output maps.
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

    static __device__ int first_of(int share, int n) { return (int)((long long)share * n / SHARES); }
};
