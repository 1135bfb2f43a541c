// CUDA kernels on the CPU: what a kernel needs of CUDA C++, so that the same file compiles with
//
//     g++ -x c++ -std=c++17 -include cuda/host/cuda_host.hpp kernel.cu
//
// Every thread of every block of a launch runs in this one process as a fibre. Fibres take turns only where a thread has to
// wait (a barrier, a warp's exchange, a pause in a loop that spins), and their order is shuffled by a seed, so a kernel that
// relies on an order fails here sooner than on a device. A fibre runs threads one after the other until one of them has
// to wait; then it belongs to that thread to its end, and another fibre takes up the rest. A kernel that never waits
// therefore costs no switch at all.
//
// What is an error here, told by `launch_NAME`: a barrier that not all threads of a block reach, or that they reach in
// different lines; a warp's exchange that a thread named in the mask does not reach, by ending before it too, or reaches with
// another mask or in another line; threads that wait for ever; a thread that needs more stack than there is. After an
// error the launch stands still where it is, and what it has written is worth nothing.
// Shared memory comes from the heap and is filled with NaN, so AddressSanitizer sees where it ends, and a value
// that nobody wrote is not 0. What an exchange brings from a lane that takes no part in it is NaN too.
// `races.cpp` finds what two threads do to one place without a barrier between them.
#pragma once

#if defined(__SANITIZE_THREAD__)
// The compiler does not report what these touch. Under names of ours they reach `races.cpp`; so they are declared before
// any header does it.
#include <stddef.h>
extern "C" {
void* memset(void*, int, size_t) noexcept __asm__("host_memset");
void* memcpy(void* __restrict, const void* __restrict, size_t) noexcept __asm__("host_memcpy");
void* memmove(void*, const void*, size_t) noexcept __asm__("host_memmove");
}
#endif

#include <math.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

using std::isfinite;
using std::max;
using std::min;

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)

// The upper half of the product of two 64-bit numbers.
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace host {

// Where in a kernel's source a thread is.
struct Line {
    const char* file;
    int number;
};

// The fibres' work, in cuda_host.cpp: it is compiled without race detection, which would see the scheduler as well.
void barrier(Line line);
void spin(Line line);
std::uint64_t exchange(unsigned mask, std::uint64_t value, int source, Line line);
void* shared_bytes(const void* key, std::size_t size);
int lane();
void atomic(const void* where, std::size_t size, bool is_update, bool is_change, Line line);
void fence();
const char* launch(const unsigned* grid, const unsigned* block, unsigned seed, void (*body)(void*), void* of);

template <typename T>
inline T exchange_as(unsigned mask, T value, int source, Line line) {
    static_assert(sizeof(T) <= 8);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = exchange(mask, bits, source, line);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

// A block's own array: `Array` is `float[256]`, say; the key tells one declaration from another.
template <typename Array>
inline Array& shared(const void* key) {
    return *static_cast<Array*>(shared_bytes(key, sizeof(Array)));
}

// A kernel with arguments as the driver's interface takes them: an address each.
template <typename... Arguments>
struct Call {
    void (*kernel)(Arguments...);
    void** arguments;

    template <std::size_t... Places>
    void run(std::index_sequence<Places...>) const {
        kernel(*static_cast<std::remove_reference_t<Arguments>*>(arguments[Places])...);
    }
};

template <typename... Arguments>
inline const char* run(void (*kernel)(Arguments...), const unsigned* grid, const unsigned* block, unsigned seed,
                       void** arguments) {
    Call<Arguments...> call{kernel, arguments};
    const auto body = [](void* of) { static_cast<Call<Arguments...>*>(of)->run(std::index_sequence_for<Arguments...>{}); };
    return launch(grid, block, seed, body, &call);
}

}  // namespace host

// A default argument is evaluated where the call stands: so these know the kernel's line.
#define HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(HERE) { host::barrier({file, line}); }
inline void __nanosleep(unsigned, HERE) { host::spin({file, line}); }
inline void __threadfence() { host::fence(); }
inline void __syncwarp(unsigned mask = 0xffffffffu, HERE) { host::exchange(mask, 0, 0, {file, line}); }

template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, HERE) {
    const unsigned lane = static_cast<unsigned>(host::lane());
    return host::exchange_as(mask, value, static_cast<int>(by < warpSize - lane ? lane + by : lane), {file, line});
}

template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int with, HERE) {
    return host::exchange_as(mask, value, host::lane() ^ with, {file, line});
}

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, HERE) {
    return host::exchange_as(mask, value, source, {file, line});
}

// Fibres take turns only where they wait, so these are whole by themselves. Race detection does not look at them as at other
// accesses: it learns from them which thread has heard of which.
#define ATOMIC(name, result)                                                                             \
    template <typename T>                                                                                \
    __attribute__((no_sanitize("thread"))) inline T name(T* where, std::common_type_t<T> value, HERE) {  \
        const T before = *where;                                                                         \
        *where = result;                                                                                 \
        host::atomic(where, sizeof(T), true, *where != before, {file, line});                            \
        return before;                                                                                   \
    }
ATOMIC(atomicAdd, before + value)
ATOMIC(atomicMax, max(before, value))
ATOMIC(atomicMin, min(before, value))
ATOMIC(atomicExch, value)
#undef ATOMIC

// Other threads run between two reads of a loop that does nothing else.
template <typename T>
__attribute__((no_sanitize("thread"))) inline T load_fresh(const T* where, HERE) {
    const T value = *where;
    host::atomic(where, sizeof(T), false, false, {file, line});
    return value;
}
#undef HERE

// A block's own array. On a device: `__shared__ float tile[256]`.
#define SHARED(type, name, size) \
    static char name##_key;      \
    auto& name = host::shared<type[size]>(&name##_key)

// How the program launches a kernel from outside: the driver's arguments, an error's text or nothing.
#define LAUNCHER(kernel)                                                                                            \
    extern "C" const char* launch_##kernel(const unsigned* grid, const unsigned* block, unsigned seed, void** arguments) { \
        return host::run(kernel, grid, block, seed, arguments);                                                     \
    }
