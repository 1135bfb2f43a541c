// Dropout: each number is set to 0 with a probability, else divided by the rest of it; the gradient alike. When evaluating nothing changes.
//
// Shapes: x and y (n, COUNT) of one lane; a thread computes the four neighbouring numbers of a block. Bounds: n COUNT below 2^31.
// LAYER counts the dropout layers from the input on; INDEX is the place of its rate in NUMBERS.
// Formulas: Philox4x64-10 (Salmon et al., 2011) as `ablate/problem/dropout.py` uses it: the key is the lane's, the counter is the block's number
// plus one, the layer, the step and 0; the upper 53 bits of a word, divided by 2^53, are compared with the rate.
#pragma once
#include "activations.cuh"

// What a pass over a batch draws from: a lane's key, and the number of the step, -1 when evaluating.
struct Draw {
    unsigned long long key;
    long long step;
};

struct Philox {
    unsigned long long words[4];

    __device__ Philox(unsigned long long block, unsigned long long layer, unsigned long long step, unsigned long long key)
        : words{block, layer, step, 0} {
        unsigned long long keys[2] = {key, 0};
        for (int round = 0; round < 10; ++round) {
            const unsigned long long a = words[0], c = words[2];
            words[0] = __umul64hi(0xCA5A826395121157ull, c) ^ words[1] ^ keys[0];
            words[1] = 0xCA5A826395121157ull * c;
            words[2] = __umul64hi(0xD2E7470EE14C6C93ull, a) ^ words[3] ^ keys[1];
            words[3] = 0xD2E7470EE14C6C93ull * a;
            keys[0] += 0x9E3779B97F4A7C15ull;
            keys[1] += 0xBB67AE8584CAA73Bull;
        }
    }
};

template <int COUNT, int LAYER, int INDEX>
struct Dropout {
    static constexpr int IN = COUNT, OUT = COUNT, PARAMETERS = 0, SHARES = 0;
    static constexpr real SCALE = real(1 / (1 - number(INDEX)));
    // The least upper 53 bits that are kept: the rate times 2^53, rounded up.
    static constexpr double RATE_IN_BITS = number(INDEX) * 9007199254740992.0;
    static constexpr unsigned long long WHOLE = (unsigned long long)RATE_IN_BITS, LEAST = WHOLE + (double(WHOLE) < RATE_IN_BITS);

    // Both the values on their way forward and their gradients on their way back.
    static __device__ void apply(const real* from, real* to, int n, const Draw& draw) {
        for (int block = thread(); block < (n * COUNT + 3) / 4; block += threads()) {
            const int first = 4 * block, end = min(first + 4, n * COUNT);
            if (draw.step < 0) {
                for (int at = first; at < end; ++at) to[at] = from[at];
                continue;
            }
            const Philox drawn((unsigned long long)block + 1, LAYER, (unsigned long long)draw.step, draw.key);
#pragma unroll
            for (int word = 0; word < 4; ++word)
                if (first + word < end) to[first + word] = from[first + word] * (drawn.words[word] >> 11 >= LEAST ? SCALE : real(0));
        }
    }

    static __device__ void parameter_gradient(const real*, const real*, real*, int) {}
};
