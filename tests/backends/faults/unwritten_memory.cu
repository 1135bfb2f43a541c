// Wrong: adds to memory that nobody has written. Right: y is x.
KERNEL unwritten_memory(const real* x, real* y, int, unsigned*) {
#ifdef RIGHT
    y[thread()] = 0;
#endif
    y[thread()] += x[thread()];
}
