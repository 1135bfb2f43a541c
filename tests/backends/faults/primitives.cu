// Nothing is wrong here: what cuda_host.hpp offers, and common.cuh is built upon, for comparison with NumPy.
// x (L, n), y (L, ...), `numbers` (L, 8) of unsigned integers, by lane; blocks of any size where nothing else is said.

// y (1): the sum of x, in blocks of THREADS. numbers: how many, the largest and the smallest of x, and any one of them.
KERNEL sums(const real* x, real* y, int n, unsigned* numbers) {
    x += slot() * n, y += slot(), numbers += slot() * 8;
    real sum = 0;
    for (int at = thread(); at < n; at += threads()) {
        sum += x[at];
        atomicAdd(&numbers[0], 1u);
        atomicMax(&numbers[1], (unsigned)x[at]);
        atomicMin(&numbers[2], (unsigned)x[at]);
        atomicExch(&numbers[3], (unsigned)x[at]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) atomicAdd(y, sum);
}

// y (3, n): x of the lane 3 further in the same warp, of lane 5, and of the neighbour; n threads in all.
KERNEL exchanges(const real* x, real* y, int n, unsigned*) {
    const real value = x[thread()];
    y[thread()] = __shfl_down_sync(0xffffffffu, value, 3);
    y[n + thread()] = __shfl_sync(0xffffffffu, value, 5);
    y[2 * n + thread()] = __shfl_xor_sync(0xffffffffu, value, 1);
}

// y (n): five times x of the second next lane and back, even and odd lanes on different ways.
KERNEL partial_exchanges(const real* x, real* y, int, unsigned*) {
    real value = x[thread()];
    for (int time = 0; time < 5; ++time)
        if (threadIdx.x % 2)
            value = __shfl_xor_sync(0xaaaaaaaau, value, 2);
        else
            value = __shfl_xor_sync(0x55555555u, value, 2) + 1;
    y[thread()] = value;
}

// y (2, n), the first x: seven times to and fro, each time the next number plus one.
KERNEL rounds(const real* x, real* y, int n, unsigned* numbers) {
    x += slot() * n, y += slot() * 2 * n;
    for (int at = thread(); at < n; at += threads()) y[at] = x[at];
    for (int time = 0; time < 7; ++time) {
        lane_barrier(numbers);
        for (int at = thread(); at < n; at += threads())
            y[(time + 1) % 2 * n + at] = y[time % 2 * n + (at + 1) % n] + 1;
    }
}

// y (n): each warp's lanes hand x round in shared memory, ordered by nothing but __syncwarp.
KERNEL within_warps(const real* x, real* y, int, unsigned*) {
    SHARED(real, tile, THREADS);
    tile[threadIdx.x] = x[thread()];
    __syncwarp();
    y[thread()] = tile[threadIdx.x / 32 * 32 + (threadIdx.x + 1) % 32];
}

template <int FACTOR>
__device__ real of_its_own(real value) {
    SHARED(real, kept, 1);
    if (threadIdx.x == 0) kept[0] = FACTOR * value;
    __syncthreads();
    return kept[0];
}

// y (B): shared memory belongs to one block and one instantiation. 2 and 3 times the block's first x, one after the other.
KERNEL instantiations(const real* x, real* y, int, unsigned*) {
    const real first = of_its_own<2>(x[thread()]), second = of_its_own<3>(x[thread()]);
    if (threadIdx.x == 0) y[blockIdx.x] = first * 1000 + second;
}

// y (1): one thread pauses n times, with a sign of life after every thousand; the others wait for it.
KERNEL slow(const real*, real* y, int n, unsigned* numbers) {
    if (thread() == 0) {
        for (int time = 1; time <= n; ++time) {
            __nanosleep(20);
            if (time % 1000 == 0) atomicAdd(numbers, 1u);
        }
        y[0] = 1;
    } else {
        while (load_fresh(numbers) < n / 1000u) __nanosleep(20);
    }
}

// y: how many threads ran before this one.
KERNEL order(const real*, real* y, int, unsigned* numbers) { y[thread()] = atomicAdd(numbers, 1u); }
