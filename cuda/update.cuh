// From partial sums to new weights: the gradient of a batch, and the update rules w -= rate * step.
//
// Shapes, of one lane: partial (SHARES, PARAMETERS) and the layer's part of gradient (PARAMETERS); theta, gradient and the rule's two
// states (size). Sources of the formulas: ablate/optimizers.py; the rates carry learning rate and signs.
#pragma once
#include "common.cuh"

enum RuleName { SGD, MOMENTUM, ADAM, RMSPROP, ADAGRAD };

// Momentum: a = momentum. Adam: a, b = 1 - beta1, 1 - beta2. RMSprop: a = 1 - decay.
struct Rule {
    int name;
    real a, b, epsilon;
};
struct Rates {
    real hidden, output;
};
// Adam's corrections at this step: 1 / (1 - beta1^t), 1 / (1 - beta2^t).
struct Corrections {
    real mean, square;
};

// The two mistakes of `ablate/bugs.py` that concern a whole batch: biases divided once more, gradients never reset.
struct Misread {
    int divides_biases, keeps_gradient;
};

__device__ inline void add_shares(const real* partial, int shares, int parameters, int weights, const Misread& misread, real* gradient, int n) {
    for (int at = thread(); at < parameters; at += threads()) {
        real sum = 0;
        for (int share = 0; share < shares; ++share) sum += partial[share * parameters + at];
        if (misread.divides_biases && at >= weights) sum /= n;
        gradient[at] = misread.keeps_gradient ? gradient[at] + sum : sum;
    }
}

__device__ inline real rule_step(const Rule& rule, const Corrections& corrections, real g, real* first, real* second) {
    switch (rule.name) {
        case MOMENTUM: return *first = *first * rule.a + g;
        case ADAM:
            *first += rule.a * (g - *first);
            *second += rule.b * (g * g - *second);
            return corrections.mean * *first / (sqrt(corrections.square * *second) + rule.epsilon);
        case RMSPROP:
            *first += rule.a * (g * g - *first);
            return g / (sqrt(*first) + rule.epsilon);
        case ADAGRAD:
            *first += g * g;
            return g / (sqrt(*first) + rule.epsilon);
        default: return g;
    }
}

// `output_start`: the first parameter of the output layer, which has a rate of its own.
__device__ inline void update_weights(const Rule& rule, const Rates& rates, const Corrections& corrections, const real* gradient, real* first,
                                      real* second, real* theta, int size, int output_start) {
    for (int at = thread(); at < size; at += threads()) {
        const real step = rule_step(rule, corrections, gradient[at], first + at, second + at);
        theta[at] -= (at < output_start ? rates.hidden : rates.output) * step;
    }
}

// What the gradient looks like from outside: each layer's sum of squares (layers), and how many numbers of the output layer's lr times
// gradient are above 1, and below 1e-7 but not 0 (post D's bounds). A block takes a layer.
__device__ inline void watch_gradient(const real* gradient, const int* edges, int layers, const Rates& rates, double* squares, int* counts) {
    for (int layer = blockIdx.x; layer < layers; layer += gridDim.x) {
        double sum = 0;
        int large = 0, small = 0;
        for (int at = edges[layer] + threadIdx.x; at < edges[layer + 1]; at += blockDim.x) {
            const real change = fabs(rates.output * gradient[at]);
            sum += (double)gradient[at] * gradient[at];
            large += change > 1;
            small += change > 0 && change < real(1e-7);
        }
        sum = block_sum(sum);
        large = block_sum(large);
        small = block_sum(small);
        if (threadIdx.x == 0) squares[layer] = sum;
        if (threadIdx.x == 0 && layer == layers - 1) counts[0] = large, counts[1] = small;
    }
}
