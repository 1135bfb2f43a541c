// Wrong: a block's number is announced without a fence, so whoever sees it may not see the block's sum. Right: the block that comes last adds up
// the sums of all, y[0] is the sum of x; the blocks' sums lie in y behind it.
KERNEL no_fence(const real* x, real* y, int n, unsigned* arrived) {
    real sum = 0;
    for (int at = thread(); at < n; at += threads()) sum += x[at];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    y[1 + blockIdx.x] = sum;
#ifdef RIGHT
    __threadfence();
#endif
    if (atomicAdd(arrived, 1u) != gridDim.x - 1) return;
#ifdef RIGHT
    __threadfence();
#endif
    sum = 0;
    for (unsigned block = 0; block < gridDim.x; ++block) sum += y[1 + block];
    y[0] = sum;
}
