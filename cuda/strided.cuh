// Convolution with a stride or zero padding: forward, and the gradients of input, weights and biases. Without either it is `conv.cuh`'s.
//
// Shapes: x (n, IN_MAPS, IN_HEIGHT, IN_WIDTH), y (n, OUT_MAPS, OUT_HEIGHT, OUT_WIDTH) with OUT_HEIGHT = (IN_HEIGHT + 2 PADDING - SIZE) / STRIDE + 1,
// the width alike; theta: weights (OUT_MAPS, IN_MAPS, SIZE, SIZE), then biases (OUT_MAPS). All of one lane.
// A thread computes several maps at one place; gradients of weights are SHARES partial sums over neighbouring samples, as in `conv.cuh`.
// Bounds: n times a sample's numbers below 2^31. Formulas: y = b + sum over maps and taps of w x, pixels outside of the image being 0.
#pragma once
#include "common.cuh"

template <int IN_MAPS, int IN_HEIGHT, int IN_WIDTH, int OUT_MAPS, int SIZE, int STRIDE, int PADDING, int SHARES_>
struct StridedConv {
    static constexpr int OUT_HEIGHT = (IN_HEIGHT + 2 * PADDING - SIZE) / STRIDE + 1, OUT_WIDTH = (IN_WIDTH + 2 * PADDING - SIZE) / STRIDE + 1;
    static constexpr int IN_PLACES = IN_HEIGHT * IN_WIDTH, OUT_PLACES = OUT_HEIGHT * OUT_WIDTH, TAPS = SIZE * SIZE;
    static constexpr int IN = IN_MAPS * IN_PLACES, OUT = OUT_MAPS * OUT_PLACES;
    static constexpr int WEIGHTS = OUT_MAPS * IN_MAPS * TAPS, PARAMETERS = WEIGHTS + OUT_MAPS, SHARES = SHARES_;
    static constexpr int MAPS = together(OUT_MAPS, 8), GROUPS = OUT_MAPS / MAPS;

    static __device__ bool is_inside(int row, int column) { return row >= 0 && row < IN_HEIGHT && column >= 0 && column < IN_WIDTH; }

    static __device__ void forward(const real* x, const real* theta, real* y, int n) {
        for (int at = thread(); at < n * GROUPS * OUT_PLACES; at += threads()) {
            const int place = at % OUT_PLACES, to = at / OUT_PLACES % GROUPS * MAPS, sample = at / (OUT_PLACES * GROUPS);
            const int top = place / OUT_WIDTH * STRIDE - PADDING, left = place % OUT_WIDTH * STRIDE - PADDING;
            real sum[MAPS] = {};
#pragma unroll 1
            for (int tap = 0; tap < IN_MAPS * TAPS; ++tap) {
                const int from = tap / TAPS, row = top + tap % TAPS / SIZE, column = left + tap % SIZE;
                if (!is_inside(row, column)) continue;
                const real pixel = x[(size_t)sample * IN + from * IN_PLACES + row * IN_WIDTH + column];
                for (int map = 0; map < MAPS; ++map) sum[map] += theta[(to + map) * IN_MAPS * TAPS + tap] * pixel;
            }
            for (int map = 0; map < MAPS; ++map)
                y[(size_t)sample * OUT + (to + map) * OUT_PLACES + place] = sum[map] + theta[WEIGHTS + to + map];
        }
    }

    // A thread computes one pixel, from every place whose window contains it.
    static __device__ void input_gradient(const real*, const real*, const real* dy, const real* theta, real* dx, int n) {
        for (int at = thread(); at < n * IN; at += threads()) {
            const int row = at % IN_PLACES / IN_WIDTH + PADDING, column = at % IN_WIDTH + PADDING;
            const int from = at / IN_PLACES % IN_MAPS, sample = at / IN;
            real sum = 0;
#pragma unroll 1
            for (int tap = 0; tap < TAPS; ++tap) {
                const int down = row - tap / SIZE, across = column - tap % SIZE;
                if (down < 0 || across < 0 || down % STRIDE || across % STRIDE) continue;
                if (down / STRIDE >= OUT_HEIGHT || across / STRIDE >= OUT_WIDTH) continue;
                const real* errors = dy + (size_t)sample * OUT + down / STRIDE * OUT_WIDTH + across / STRIDE;
                for (int to = 0; to < OUT_MAPS; ++to) sum += theta[(to * IN_MAPS + from) * TAPS + tap] * errors[to * OUT_PLACES];
            }
            dx[at] = sum;
        }
    }

    static __device__ void parameter_gradient(const real* x, const real* dy, real* partial, int n) {
        weight_gradient(x, dy, partial, n);
        bias_gradient(dy, partial + WEIGHTS, n);
    }

    // A thread takes one tap between one input map and several output maps.
    static __device__ void weight_gradient(const real* x, const real* dy, real* partial, int n) {
        for (int at = thread(); at < SHARES * GROUPS * IN_MAPS * TAPS; at += threads()) {
            const int tap = at % (IN_MAPS * TAPS), from = tap / TAPS, i = tap % TAPS / SIZE - PADDING, j = tap % SIZE - PADDING;
            const int to = at / (IN_MAPS * TAPS) % GROUPS * MAPS, share = at / (IN_MAPS * TAPS * GROUPS);
            real sum[MAPS] = {};
            for (int sample = first_of(share, n); sample < first_of(share + 1, n); ++sample)
                for (int place = 0; place < OUT_PLACES; ++place) {
                    const int row = place / OUT_WIDTH * STRIDE + i, column = place % OUT_WIDTH * STRIDE + j;
                    if (!is_inside(row, column)) continue;
                    const real pixel = x[(size_t)sample * IN + from * IN_PLACES + row * IN_WIDTH + column];
                    for (int map = 0; map < MAPS; ++map) sum[map] += pixel * dy[(size_t)sample * OUT + (to + map) * OUT_PLACES + place];
                }
            for (int map = 0; map < MAPS; ++map) partial[share * PARAMETERS + (to + map) * IN_MAPS * TAPS + tap] = sum[map];
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
