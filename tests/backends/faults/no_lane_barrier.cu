// Wrong: blocks read what others may not have written yet. y (2 n): the second half is right if it is 2 x in reverse.
KERNEL no_lane_barrier(const real* x, real* y, int n, unsigned* arrived) {
    for (int at = thread(); at < n; at += threads()) y[at] = 2 * x[at];
#ifdef RIGHT
    lane_barrier(arrived);
#else
    __syncthreads();
    (void)arrived;
#endif
    for (int at = thread(); at < n; at += threads()) y[n + at] = y[n - 1 - at];
}
