// What a launch consists of while it runs: blocks, warps, fibres. Only the runtime and race detection look inside.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "context.hpp"
#include "cuda_host.hpp"

namespace host {

#if defined(__SANITIZE_ADDRESS__)
// AddressSanitizer puts much between the variables of a function.
constexpr std::size_t STACK_BYTES = 256 * 1024;
#else
constexpr std::size_t STACK_BYTES = 64 * 1024;
#endif

// Race detection, where it is linked in: what it must hear of besides the kernel's own reads and writes. A block and
// a thread are given by their numbers, a place in the program by the address after it.
struct Watcher {
    void (*began)(unsigned blocks, unsigned threads) = nullptr;
    void (*synchronised)(unsigned block) = nullptr;
    void (*ended)(unsigned block) = nullptr;
    void (*met)(unsigned block, unsigned warp, unsigned mask) = nullptr;
    void (*fenced)() = nullptr;
    void (*atomic)(const void* where, std::size_t size, bool is_update, const void* program) = nullptr;
    void (*allocated)(const void* where, std::size_t size) = nullptr;
    const char* (*found)() = nullptr;
};
inline Watcher watcher;

struct Fibre;

// Lanes of a warp at an exchange that not all of `mask` have reached.
struct Meeting {
    unsigned mask, arrived;
    Line line;
    Fibre* fibres[warpSize];
    std::uint64_t values[warpSize];
};

struct Block {
    dim3 index;
    unsigned number = 0, next = 0, ended = 0, arrived = 0;
    Line line = {};
    std::vector<unsigned> order;
    std::vector<std::vector<Meeting>> warps;
    std::vector<Fibre*> waiting;
    std::vector<std::pair<const void*, std::unique_ptr<char[]>>> shared;
};

struct Fibre {
    Context context;
    std::unique_ptr<char[]> stack;
    Block* block = nullptr;
    dim3 index;
    unsigned thread = 0;
    // It belongs to the thread that it runs, to its end.
    bool is_taken = false;
    // What an exchange brings, and from which lane.
    std::uint64_t got = 0;
    int source = 0;
    Line spins = {};
    void* fake_stack = nullptr;
};

// Small and the same everywhere; std::shuffle would be neither.
struct Random {
    std::uint64_t state;

    std::uint64_t next() {
        std::uint64_t bits = state += 0x9e3779b97f4a7c15u;
        bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
        bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
        return bits ^ bits >> 31;
    }
    unsigned below(std::size_t end) { return static_cast<unsigned>((next() >> 32) * end >> 32); }

    template <typename T>
    void shuffle(std::vector<T>& values) {
        for (std::size_t last = values.size(); last > 1; --last) std::swap(values[last - 1], values[below(last)]);
    }
};

struct Launch {
    void (*body)(void*);
    void* of;
    Random random;
    unsigned threads = 0;
    // Blocks in the order of their start, and how many have started.
    std::vector<unsigned> order;
    std::size_t started = 0, alive = 0;
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<Block*> spare_blocks;
    std::vector<std::unique_ptr<Fibre>> fibres;
    std::vector<Fibre*> spare;
    // Who can go on, the last first; who has paused in a loop; how often all of these have been asked in vain.
    std::vector<Fibre*> ready, spinning;
    unsigned long rounds = 0;
    // How often the running thread has read by atomics and changed nothing.
    unsigned polls = 0;
    Fibre* current = nullptr;
    Context caller;
    const void* caller_bottom = nullptr;
    std::size_t caller_size = 0;
    void* caller_fake_stack = nullptr;
    std::string error;
};
inline Launch* launched = nullptr;

}  // namespace host
