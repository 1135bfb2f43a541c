// Wrong: every block waits for one more block than there is. Right: y is x.
KERNEL waits_for_ever(const real* x, real* y, int, unsigned* arrived) {
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1u);
#ifdef RIGHT
        while (load_fresh(arrived) < gridDim.x) __nanosleep(20);
#else
        while (load_fresh(arrived) < gridDim.x + 1) __nanosleep(20);
#endif
    }
    __syncthreads();
    y[thread()] = x[thread()];
}
