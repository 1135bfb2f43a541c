// Many steps of every lane in one launch, up to a whole epoch: the persistent kernel.
//
// Every lane is computed by gridDim.x blocks, which stay for all its steps and wait for each other between layers (`lane_barrier`),
// so the whole grid must be resident at once. It calls the same functions as the reference kernels of `batch.cu`, `layers.cu` and
// `update.cu`: the numbers are the same bit for bit.
// By -D: STAGES, the layers from the input on, as in `network.cuh`; LOWEST, the first of them that has parameters; SAMPLE, FITTED,
// LOGITS and CAPACITY as in `batch.cu`. Grid: (B, L), blocks of THREADS. Bounds: those of the other kernels.
#include "batch.cuh"
#include "network.cuh"

// All arrays in device memory, named as in the other files, and the sizes, eight bytes each.
struct Training {
    const int* lanes;
    const real* rows;
    const Target* known;
    const double* facts;
    const int* fit;
    const int* orders;
    const int* order_of;
    const Kind* kinds;
    const Constants* constants;
    const real* class_weights;
    const int* is_mean;
    const Rule* rules;
    const Rates* rates;
    const Corrections* corrections;
    real* theta;
    real* gradient;
    double* parts;
    real* first;
    real* second;
    real* partial;
    Target* targets;
    real* p;
    real* values;
    int* predicted;
    double* losses;
    double* tallies;
    int* ended;
    const int* columns;  // the column of each step in the log, or -1
    const int* edges;
    double* squares;
    int* counts;
    real* const* outputs;  // the arrays of the input and of every layer's output
    real* const* errors;   // the arrays of their gradients
    unsigned* arrived;
    const unsigned long long* keys;  // of dropout
    long long count, batch, steps, first_step, end_step, partials, logged, layers, done, rated;  // done: steps before the epoch
};

KERNEL train_epoch(const Training* training) {
    const Training& t = *training;
    const int lane = t.lanes[slot()];
    real *theta = t.theta + (size_t)lane * Network::SIZE, *gradient = t.gradient + (size_t)lane * Network::SIZE;
    double* parts = t.parts + (size_t)lane * NORM_PARTS;
    real *first = t.first + (size_t)lane * Network::SIZE, *second = t.second + (size_t)lane * Network::SIZE;
    real* partial = t.partial + (size_t)slot() * t.partials;
    const int* order = t.orders + (size_t)t.order_of[lane] * t.count;
    constexpr int LAST = Network::LAYERS;
    if (t.ended[lane] < t.first_step) return;
    for (int step = (int)t.first_step; step < t.end_step; ++step) {
        const int start = step * (int)t.batch, n = min((int)t.batch, (int)t.count - start);
        const size_t samples = (size_t)slot() * CAPACITY, logits = samples * LOGITS, place = (size_t)lane * t.steps + step;
        const Draw draw{t.keys[lane], t.done + step};
        Target* targets = t.targets + samples * WIDTH<LOGITS>;
        gather<SAMPLE, FITTED, LOGITS>(t.rows, t.known, t.fit, order + start, t.outputs[0] + samples * FITTED, targets, n);
        lane_barrier(t.arrived);
        for (int layer = 0; layer < LAST; ++layer) {
            Network::forward(layer, t.outputs[layer], theta, t.outputs[layer + 1], n, draw);
            lane_barrier(t.arrived);
        }
        loss_and_gradient<LOGITS>(t.kinds[lane], t.constants[lane], t.class_weights + lane * CLASS_WEIGHTS, t.is_mean[lane],
                                 t.outputs[LAST] + logits, targets, t.p + logits, t.errors[LAST] + logits, t.values + samples,
                                 t.predicted + samples, n);
        lane_barrier(t.arrived);
        if (blockIdx.x == gridDim.x - 1)
            tally_step<LOGITS>(t.values + samples, t.predicted + samples, targets, t.p + logits, t.facts, t.losses + place,
                               t.tallies + place * SCORING::TRAINED, t.ended + lane, step, n);
        for (int layer = LAST - 1; layer >= LOWEST; --layer) {
            const real *x = t.outputs[layer], *dy = t.errors[layer + 1];
            Network::parameter_gradient(layer, x, dy, partial, n);
            if (layer > LOWEST) Network::input_gradient(layer, x, t.outputs[layer + 1], dy, theta, t.errors[layer], n, draw);
            lane_barrier(t.arrived);
        }
        Network::add(partial, gradient, n);
        lane_barrier(t.arrived);
        const Rates& rates = rates_at(t.rates, (int)t.rated, lane, step);
        const int column = t.columns[step];
        if (column >= 0) {
            const size_t logged = (size_t)lane * t.logged + column;
            watch_gradient(gradient, t.edges, (int)t.layers, rates, t.squares + logged * t.layers, t.counts + logged * 2);
        }
        if (t.ended[lane] <= step) return;
        if (t.rules[lane].clip_norm > 0) {
            square_parts(t.rules[lane], gradient, Network::SIZE, parts);
            lane_barrier(t.arrived);
        }
        update_weights(t.rules[lane], rates, t.corrections[place], gradient, parts, first, second, theta, Network::SIZE,
                       Network::OUTPUT_START);
        // The barrier after gathering the next batch keeps every block from reading weights that are not written yet.
    }
}
