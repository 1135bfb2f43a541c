// What every kernel shares: the floating-point type, how a thread finds its work, and how the blocks of a lane wait for each other.
//
// A launch has the grid (B, L) and blocks of THREADS threads: L lanes, each computed by B blocks. A lane's place in the launch is its
// *slot*, blockIdx.y. Arrays that live for one batch are (L, ...), by slot, with a fixed size per slot, since lanes may be at batches of
// different sizes. Arrays that live for the whole training, such as the weights, are (K, ...), by lane; `lanes[slot]` is the lane in a
// slot. The threads of a lane take the elements of its work in turn, so every function is right for any B. `real` is float or double, by
// -D REAL.
#pragma once

#ifndef REAL
#define REAL float
#endif
using real = REAL;

#define THREADS 128
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 1)

#if defined(__CUDACC__)
#define SHARED(type, name, size) __shared__ type name[size]
// Reads what other blocks have written, not a cached value.
__device__ __forceinline__ unsigned load_fresh(const unsigned* place) { return *(const volatile unsigned*)place; }
#endif

__device__ __forceinline__ int thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int threads() { return gridDim.x * blockDim.x; }
__device__ __forceinline__ int slot() { return blockIdx.y; }

// The largest divisor of `count` that is at most `most`: how many elements one thread computes together.
__host__ __device__ constexpr int together(int count, int most) {
    for (int size = most; size > 1; --size)
        if (count % size == 0) return size;
    return 1;
}

// The sum of a value over the threads of a warp, in every thread; the order of the additions is fixed.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

// The sum over a block, in every thread. Every thread of the block must call it.
template <class T>
__device__ __forceinline__ T block_sum(T value) {
    SHARED(T, warps, THREADS / 32);
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = 0;
    for (int warp = 0; warp < THREADS / 32; ++warp) sum += warps[warp];
    __syncthreads();
    return sum;
}

// All blocks of a lane wait here for each other: `arrived` (L,) starts at 0. Every block of the launch must be resident.
__device__ inline void lane_barrier(unsigned* arrived) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const unsigned ticket = atomicAdd(&arrived[slot()], 1u);
        const unsigned awaited = (ticket / gridDim.x + 1) * gridDim.x;
        while (load_fresh(&arrived[slot()]) < awaited) __nanosleep(20);
        __threadfence();
    }
    __syncthreads();
}
