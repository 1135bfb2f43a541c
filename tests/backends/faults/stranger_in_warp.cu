// Wrong: the exchange brings values of lanes that its mask does not name. Right: y is x of the lane 8 further, in the other half none.
KERNEL stranger_in_warp(const real* x, real* y, int, unsigned*) {
    y[thread()] = x[thread()];
    if (threadIdx.x % 32 >= 16) return;
#ifdef RIGHT
    y[thread()] = __shfl_xor_sync(0x0000ffffu, x[thread()], 8);
#else
    y[thread()] = __shfl_xor_sync(0x0000ffffu, x[thread()], 16);
#endif
}
