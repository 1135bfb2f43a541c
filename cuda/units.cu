// The state of hidden units on the first samples of a batch: how many ReLU maps or units are 0 on all of them, and how many values are near
// the bounds of a sigmoid or tanh.
//
// y (L, capacity, units, places), a layer's values, of which the first `rows` samples are read: maps and pixels per map, or units and 1.
// Grid: (any number, L). Bounds: rows times units times places below 2^31.
#include "common.cuh"

// Adds to dead (K) the units that are above 0 nowhere.
KERNEL count_dead(const int* lanes, const real* y, int capacity, int units, int places, int rows, int* dead) {
    for (int unit = thread(); unit < units; unit += threads()) {
        const real* values = y + ((size_t)slot() * capacity * units + unit) * places;
        bool is_alive = false;
        for (int row = 0; row < rows; ++row)
            for (int place = 0; place < places; ++place) is_alive |= values[(size_t)row * units * places + place] > 0;
        if (!is_alive) atomicAdd(&dead[lanes[slot()]], 1);
    }
}

// Adds to saturated (K) the values that are further than `reach` from `middle`.
KERNEL count_saturated(const int* lanes, const real* y, int capacity, int units, int places, int rows, real middle, real reach, int* saturated) {
    const int size = units * places;
    for (int at = thread(); at < rows * size; at += threads())
        if (fabs(y[(size_t)slot() * capacity * size + at] - middle) > reach) atomicAdd(&saturated[lanes[slot()]], 1);
}
