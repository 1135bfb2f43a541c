// Wrong: a tile is filled again before all have read it. Right: y is the sum of the two halves of x, each in reverse within each block.
KERNEL no_second_barrier(const real* x, real* y, int n, unsigned*) {
    SHARED(real, tile, THREADS);
    real sum = 0;
    for (int half = 0; half < 2; ++half) {
        tile[threadIdx.x] = x[half * (n / 2) + thread()];
        __syncthreads();
        sum += tile[THREADS - 1 - threadIdx.x];
#ifdef RIGHT
        __syncthreads();
#endif
    }
    y[thread()] = sum;
}
