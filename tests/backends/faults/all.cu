// All kernels of this folder as one file, so that they are compiled together: a line each for who looks for their names.
// With -D RIGHT what is wrong in them is put right.
#include "../../../cuda/common.cuh"

KERNEL out_of_bounds(const real*, real*, int, unsigned*);
KERNEL out_of_tile(const real*, real*, int, unsigned*);
KERNEL overflow(const real*, real*, int, unsigned*);
KERNEL no_barrier(const real*, real*, int, unsigned*);
KERNEL no_second_barrier(const real*, real*, int, unsigned*);
KERNEL some_at_barrier(const real*, real*, int, unsigned*);
KERNEL two_barriers(const real*, real*, int, unsigned*);
KERNEL no_atomic(const real*, real*, int, unsigned*);
KERNEL no_lane_barrier(const real*, real*, int, unsigned*);
KERNEL no_fence(const real*, real*, int, unsigned*);
KERNEL overwritten(const real*, real*, int, unsigned*);
KERNEL half_a_warp(const real*, real*, int, unsigned*);
KERNEL stranger_in_warp(const real*, real*, int, unsigned*);
KERNEL waits_for_ever(const real*, real*, int, unsigned*);
KERNEL unwritten_tile(const real*, real*, int, unsigned*);
KERNEL unwritten_memory(const real*, real*, int, unsigned*);
KERNEL sums(const real*, real*, int, unsigned*);
KERNEL exchanges(const real*, real*, int, unsigned*);
KERNEL partial_exchanges(const real*, real*, int, unsigned*);
KERNEL rounds(const real*, real*, int, unsigned*);
KERNEL within_warps(const real*, real*, int, unsigned*);
KERNEL instantiations(const real*, real*, int, unsigned*);
KERNEL slow(const real*, real*, int, unsigned*);
KERNEL order(const real*, real*, int, unsigned*);

#include "half_a_warp.cu"
#include "no_atomic.cu"
#include "no_barrier.cu"
#include "no_fence.cu"
#include "no_lane_barrier.cu"
#include "no_second_barrier.cu"
#include "out_of_bounds.cu"
#include "out_of_tile.cu"
#include "overflow.cu"
#include "overwritten.cu"
#include "primitives.cu"
#include "some_at_barrier.cu"
#include "stranger_in_warp.cu"
#include "two_barriers.cu"
#include "unwritten_memory.cu"
#include "unwritten_tile.cu"
#include "waits_for_ever.cu"
