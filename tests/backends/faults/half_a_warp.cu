// Wrong: half of a warp's lanes end before an exchange whose mask names them all. Right: y is x of the lane 16 further, or less.
KERNEL half_a_warp(const real* x, real* y, int, unsigned*) {
#ifndef RIGHT
    if (threadIdx.x % 32 < 16) return;
#endif
    y[thread()] = __shfl_xor_sync(0xffffffffu, x[thread()], 16);
}
