// Wrong: an `int` becomes larger than it can be.
KERNEL overflow(const real*, real* y, int n, unsigned*) {
#ifdef RIGHT
    const long long square = (long long)n * 100000 * n * 100000;
#else
    const int square = n * 100000 * n * 100000;
#endif
    for (int at = thread(); at < n; at += threads()) y[at] = square;
}
