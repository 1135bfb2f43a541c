// Wrong: a sum in shared memory does not start at 0. Right: y (B) is the sum of each block's x.
KERNEL unwritten_tile(const real* x, real* y, int, unsigned*) {
    SHARED(real, sum, 1);
#ifdef RIGHT
    if (threadIdx.x == 0) sum[0] = 0;
    __syncthreads();
#endif
    atomicAdd(&sum[0], x[thread()]);
    __syncthreads();
    if (threadIdx.x == 0) y[blockIdx.x] = sum[0];
}
