// Wrong: one thread overwrites what another may not have read yet. Right: y (B) is the second x of each block.
KERNEL overwritten(const real* x, real* y, int, unsigned*) {
    SHARED(real, tile, THREADS);
    tile[threadIdx.x] = x[thread()];
    __syncthreads();
    if (threadIdx.x == 0) y[blockIdx.x] = tile[1];
#ifdef RIGHT
    __syncthreads();
#endif
    if (threadIdx.x == 1) tile[1] = 0;
}
