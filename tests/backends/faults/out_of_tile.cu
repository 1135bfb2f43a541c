// Wrong: the last thread reads one element behind the end of shared memory. Right: y[i] is the block's x[i + 1], the last one's x[0].
KERNEL out_of_tile(const real* x, real* y, int, unsigned*) {
    SHARED(real, tile, THREADS);
    tile[threadIdx.x] = x[thread()];
    __syncthreads();
#ifdef RIGHT
    const real* next = tile + (threadIdx.x + 1) % THREADS;
#else
    const real* next = tile + threadIdx.x + 1;
#endif
    y[thread()] = *next;
}
