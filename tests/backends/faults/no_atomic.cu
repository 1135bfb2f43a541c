// Wrong: all threads add to one number, and what one adds may be lost. y (1) starts at 0; right: the sum of x.
KERNEL no_atomic(const real* x, real* y, int n, unsigned*) {
    for (int at = thread(); at < n; at += threads()) {
#ifdef RIGHT
        atomicAdd(y, x[at]);
#else
        y[0] += x[at];
#endif
    }
}
