// Pooling over non-overlapping squares, remainders cut off: the maximum, whose gradient goes to the first maximum of a window, and the mean.
//
// Shapes: x (n, MAPS, HEIGHT, WIDTH), y (n, MAPS, HEIGHT / SIZE, WIDTH / SIZE), of one lane. A thread computes one element: of y forward,
// of dx backward. Bounds: n times a sample's numbers below 2^31.
// The first maximum is the first in row-major order; a window that contains NaN gives NaN, as NumPy's maximum does.
#pragma once
#include "common.cuh"

template <int MAPS, int HEIGHT, int WIDTH, int SIZE>
struct Pool {
    static constexpr int OUT_HEIGHT = HEIGHT / SIZE, OUT_WIDTH = WIDTH / SIZE, PARAMETERS = 0, SHARES = 0;
    static constexpr int IN = MAPS * HEIGHT * WIDTH, OUT = MAPS * OUT_HEIGHT * OUT_WIDTH;

    static __device__ int first_maximum(const real* window) {
        int best = 0;
        for (int i = 0; i < SIZE; ++i)
            for (int j = 0; j < SIZE; ++j) {
                const bool is_nan_already = window[best] != window[best];
                if (!is_nan_already && !(window[i * WIDTH + j] <= window[best])) best = i * WIDTH + j;
            }
        return best;
    }

    static __device__ void forward(const real* x, const real*, real* y, int n) {
        for (int at = thread(); at < n * OUT; at += threads()) {
            const int column = at % OUT_WIDTH, row = at / OUT_WIDTH % OUT_HEIGHT, image = at / (OUT_WIDTH * OUT_HEIGHT);
            const real* window = x + ((size_t)image * HEIGHT + row * SIZE) * WIDTH + column * SIZE;
            y[at] = window[first_maximum(window)];
        }
    }

    static __device__ void input_gradient(const real* x, const real*, const real* dy, const real*, real* dx, int n) {
        for (int at = thread(); at < n * IN; at += threads()) {
            const int column = at % WIDTH, row = at / WIDTH % HEIGHT, image = at / (WIDTH * HEIGHT);
            const int out_row = row / SIZE, out_column = column / SIZE;
            real error = 0;
            if (out_row < OUT_HEIGHT && out_column < OUT_WIDTH) {
                const real* window = x + ((size_t)image * HEIGHT + out_row * SIZE) * WIDTH + out_column * SIZE;
                if (first_maximum(window) == row % SIZE * WIDTH + column % SIZE)
                    error = dy[((size_t)image * OUT_HEIGHT + out_row) * OUT_WIDTH + out_column];
            }
            dx[at] = error;
        }
    }

    static __device__ void parameter_gradient(const real*, const real*, real*, int) {}
};

template <int MAPS, int HEIGHT, int WIDTH, int SIZE>
struct AvgPool {
    static constexpr int OUT_HEIGHT = HEIGHT / SIZE, OUT_WIDTH = WIDTH / SIZE, PARAMETERS = 0, SHARES = 0;
    static constexpr int IN = MAPS * HEIGHT * WIDTH, OUT = MAPS * OUT_HEIGHT * OUT_WIDTH;

    static __device__ void forward(const real* x, const real*, real* y, int n) {
        for (int at = thread(); at < n * OUT; at += threads()) {
            const int column = at % OUT_WIDTH, row = at / OUT_WIDTH % OUT_HEIGHT, image = at / (OUT_WIDTH * OUT_HEIGHT);
            const real* window = x + ((size_t)image * HEIGHT + row * SIZE) * WIDTH + column * SIZE;
            real sum = 0;
            for (int i = 0; i < SIZE; ++i)
                for (int j = 0; j < SIZE; ++j) sum += window[i * WIDTH + j];
            y[at] = sum / (SIZE * SIZE);
        }
    }

    static __device__ void input_gradient(const real*, const real*, const real* dy, const real*, real* dx, int n) {
        for (int at = thread(); at < n * IN; at += threads()) {
            const int column = at % WIDTH / SIZE, row = at / WIDTH % HEIGHT / SIZE, image = at / (WIDTH * HEIGHT);
            const bool is_read = row < OUT_HEIGHT && column < OUT_WIDTH;
            dx[at] = is_read ? dy[((size_t)image * OUT_HEIGHT + row) * OUT_WIDTH + column] / (SIZE * SIZE) : real(0);
        }
    }

    static __device__ void parameter_gradient(const real*, const real*, real*, int) {}
};
