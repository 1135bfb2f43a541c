// Many steps of every lane in one launch, up to a whole epoch: the persistent kernel.
//
// Every lane is computed by gridDim.x blocks, which stay for all its steps and wait for each other between layers (`lane_barrier`),
// so the whole grid must be resident at once. What it computes is what the clear kernels of `batch.cu`, `stage.cu` and `update.cu`
// compute, by the same functions: the numbers are the same bit for bit.
// By -D: STAGES, the layers from the input on, as STAGE of `stage.cu`; LOWEST, the first of them that has parameters; SAMPLE, FITTED,
// LOGITS and CAPACITY as in `batch.cu`. Grid: (B, L), blocks of THREADS. Bounds: those of the other kernels.
#include "batch.cuh"
#include "conv.cuh"
#include "dense.cuh"
#include "elementwise.cuh"
#include "pool.cuh"
#include "update.cuh"

// All that lies in the device's memory, by the names of the other files, and the sizes, eight bytes each.
struct Training {
    const int* lanes;
    const real* rows;
    const int* labels;
    const int* fit;
    const int* orders;
    const int* order_of;
    const Kind* kinds;
    const Constants* constants;
    const int* is_mean;
    const Rule* rules;
    const Rates* rates;
    const Corrections* corrections;
    real* theta;
    real* gradient;
    real* first;
    real* second;
    real* partial;
    int* targets;
    real* p;
    real* values;
    int* predicted;
    double* losses;
    int* right;
    int* ended;
    const int* columns;  // of each step its column in the log, or -1
    const int* edges;
    double* squares;
    int* counts;
    real* const* outputs;  // the input's and every layer's array
    real* const* errors;   // their gradients'
    unsigned* arrived;
    long long count, batch, steps, first_step, end_step, partials, logged, layers, divides_biases, keeps_gradient;
};

// The layers from number INDEX on, whose parameters start at START and whose partial sums at PARTIAL_START.
template <int INDEX, int START, int PARTIAL_START, class... Stages>
struct Chain {
    static constexpr int LAST = INDEX, SIZE = START, OUTPUT_START = -1;
    static __device__ void forward(const Training&, const real*, int) {}
    static __device__ void backward(const Training&, const real*, real*, int) {}
    static __device__ void add(const Training&, const real*, real*, int) {}
};

template <int INDEX, int START, int PARTIAL_START, class Stage, class... Rest>
struct Chain<INDEX, START, PARTIAL_START, Stage, Rest...> {
    using Next = Chain<INDEX + 1, START + Stage::PARAMETERS, PARTIAL_START + Stage::SHARES * Stage::PARAMETERS, Rest...>;
    static constexpr int LAST = Next::LAST, SIZE = Next::SIZE;
    // Where the last layer with parameters starts.
    static constexpr int OUTPUT_START = Stage::PARAMETERS && Next::OUTPUT_START < 0 ? START : Next::OUTPUT_START;

    static __device__ real* in(real* const* arrays) { return arrays[INDEX] + (size_t)slot() * CAPACITY * Stage::IN; }
    static __device__ real* out(real* const* arrays) { return arrays[INDEX + 1] + (size_t)slot() * CAPACITY * Stage::OUT; }

    static __device__ void forward(const Training& t, const real* theta, int n) {
        Stage::forward(in(t.outputs), theta + START, out(t.outputs), n);
        lane_barrier(t.arrived);
        Next::forward(t, theta, n);
    }

    static __device__ void backward(const Training& t, const real* theta, real* partial, int n) {
        Next::backward(t, theta, partial, n);
        if constexpr (INDEX >= LOWEST) {
            const real *x = in(t.outputs), *dy = out(t.errors);
            Stage::parameter_gradient(x, dy, partial + PARTIAL_START, n);
            if constexpr (INDEX > LOWEST) Stage::input_gradient(x, out(t.outputs), dy, theta + START, in(t.errors), n);
            lane_barrier(t.arrived);
        }
    }

    static __device__ void add(const Training& t, const real* partial, real* gradient, int n) {
        if constexpr (Stage::PARAMETERS > 0)
            add_shares(partial + PARTIAL_START, Stage::SHARES, Stage::PARAMETERS, Stage::WEIGHTS,
                       {(int)t.divides_biases, (int)t.keeps_gradient}, gradient + START, n);
        Next::add(t, partial, gradient, n);
    }
};

using Network = Chain<0, 0, 0, STAGES>;

KERNEL train_epoch(const Training* training) {
    const Training& t = *training;
    const int lane = t.lanes[slot()];
    real *theta = t.theta + (size_t)lane * Network::SIZE, *gradient = t.gradient + (size_t)lane * Network::SIZE;
    real *first = t.first + (size_t)lane * Network::SIZE, *second = t.second + (size_t)lane * Network::SIZE;
    real* partial = t.partial + (size_t)slot() * t.partials;
    const int* order = t.orders + (size_t)t.order_of[lane] * t.count;
    constexpr int LAST = Network::LAST;
    if (t.ended[lane] < t.first_step) return;
    for (int step = (int)t.first_step; step < t.end_step; ++step) {
        const int start = step * (int)t.batch, n = min((int)t.batch, (int)t.count - start);
        const size_t samples = (size_t)slot() * CAPACITY, logits = samples * LOGITS, place = (size_t)lane * t.steps + step;
        gather<SAMPLE, FITTED>(t.rows, t.labels, t.fit, order + start, t.outputs[0] + samples * FITTED, t.targets + samples, n);
        lane_barrier(t.arrived);
        Network::forward(t, theta, n);
        loss_and_gradient<LOGITS>(t.kinds[lane], t.constants[lane], t.is_mean[lane], t.outputs[LAST] + logits, t.targets + samples,
                                 t.p + logits, t.errors[LAST] + logits, t.values + samples, t.predicted + samples, n);
        lane_barrier(t.arrived);
        if (blockIdx.x == gridDim.x - 1)
            tally_step(t.values + samples, t.predicted + samples, t.targets + samples, t.losses + place, t.right + place, t.ended + lane, step, n);
        Network::backward(t, theta, partial, n);
        Network::add(t, partial, gradient, n);
        lane_barrier(t.arrived);
        const int column = t.columns[step];
        if (column >= 0) {
            const size_t logged = (size_t)lane * t.logged + column;
            watch_gradient(gradient, t.edges, (int)t.layers, t.rates[lane], t.squares + logged * t.layers, t.counts + logged * 2);
        }
        if (t.ended[lane] <= step) return;
        update_weights(t.rules[lane], t.rates[lane], t.corrections[place], gradient, first, second, theta, Network::SIZE, Network::OUTPUT_START);
        // The barrier behind the next batch's gathering lets nobody read weights that are not written yet.
    }
}
