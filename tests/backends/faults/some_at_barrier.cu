// Wrong: half of the threads end without the barrier.
KERNEL some_at_barrier(const real* x, real* y, int, unsigned*) {
#ifndef RIGHT
    if (threadIdx.x < THREADS / 2)
#endif
    __syncthreads();
    y[thread()] = x[thread()];
}
