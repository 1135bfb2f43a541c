// Wrong: the last thread writes one element behind the end of `y` (n).
KERNEL out_of_bounds(const real* x, real* y, int n, unsigned*) {
#ifdef RIGHT
    for (int at = thread(); at < n; at += threads()) y[at] = 2 * x[at];
#else
    for (int at = thread(); at <= n; at += threads()) y[at] = 2 * x[0];
#endif
}
