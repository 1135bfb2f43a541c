// Wrong: nobody waits until the neighbour has written. Right: y is x, in reverse within each block.
KERNEL no_barrier(const real* x, real* y, int, unsigned*) {
    SHARED(real, tile, THREADS);
    tile[threadIdx.x] = x[thread()];
#ifdef RIGHT
    __syncthreads();
#endif
    y[thread()] = tile[THREADS - 1 - threadIdx.x];
}
