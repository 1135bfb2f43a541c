// Wrong: the two halves of a block wait at different barriers.
KERNEL two_barriers(const real* x, real* y, int, unsigned*) {
#ifdef RIGHT
    __syncthreads();
#else
    if (threadIdx.x < THREADS / 2)
        __syncthreads();
    else
        __syncthreads();
#endif
    y[thread()] = x[thread()];
}
