// Finds what two threads of a launch do to one place in memory without an order between them: a missing barrier, a missing
// atomic, a missing fence, two threads that write where one should.
//
// Kernels compiled with `-fsanitize=thread` report every read and write to functions of ThreadSanitizer's; here these functions
// are ours, and ThreadSanitizer itself is not linked. This file must be compiled without that option. Remembered of each
// four bytes are who wrote them last and three threads that read them since. An order comes from
//
// - a barrier of a block: it ends an *interval* of the block, and all of an interval is before all of the next;
// - an exchange or __syncwarp, among the lanes that take part;
// - atomics between fences: who reads by an atomic or `load_fresh`, and then does a __threadfence, has heard all that
//   others knew at their last fence before they changed that place by an atomic; his block hears it at its next barrier.
//
// What a thread knows of others is, for each block, how many intervals it has heard to their end (a vector clock), and besides, of
// single threads, how many *stamps*: a thread's fences and exchanges. Not seen: a race with a fourth reader whom the other three
// have replaced, one in neighbouring bytes of the same four, and what happens in a thread's own variables.
#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <dlfcn.h>

#include "fibres.hpp"

namespace {

struct Access {
    const void* program;
    unsigned block, thread, interval, stamp;
    // Which of the four bytes; none: there was no such access.
    unsigned char bytes = 0;
    bool is_atomic, is_write;
};

struct Place {
    Access written;
    Access read[3];
};

constexpr std::uintptr_t PAGE = 4096;
using Page = std::array<Place, PAGE / 4>;

struct Stamp {
    unsigned stamp, interval;
};

// What is known: the number of each block's ended intervals, and single threads' stamps in intervals that have not ended.
struct Clock {
    std::vector<unsigned> intervals;
    std::map<std::pair<unsigned, unsigned>, Stamp> stamps;

    bool is_empty() const { return intervals.empty(); }
    void hear(const Clock& other) {
        if (other.is_empty()) return;
        if (is_empty()) {
            *this = other;
            return;
        }
        for (std::size_t block = 0; block < intervals.size(); ++block)
            intervals[block] = std::max(intervals[block], other.intervals[block]);
        for (const auto& [thread, heard] : other.stamps) hear(thread.first, thread.second, heard);
        for (auto each = stamps.begin(); each != stamps.end();)
            each = each->second.interval < intervals[each->first.first] ? stamps.erase(each) : std::next(each);
    }
    void hear(unsigned block, unsigned thread, Stamp heard) {
        Stamp& known = stamps[{block, thread}];
        if (known.stamp < heard.stamp) known = heard;
    }
    bool knows(const Access& access) const {
        if (is_empty()) return false;
        if (access.interval < intervals[access.block]) return true;
        const auto known = stamps.find({access.block, access.thread});
        return known != stamps.end() && access.stamp < known->second.stamp;
    }
};

// A thread's own knowledge, beyond its block's: since the block's last barrier, by atomics that no fence followed yet, and
// what it knew at its last fence.
struct Knowledge {
    Clock known, unfenced, published;
};

struct WatchedBlock {
    unsigned interval = 0;
    Clock known;
    std::vector<unsigned> stamps;
    // [thread][lane]: the stamps of each lane of its warp that a thread knows by exchanges, and each warp's last interval with one.
    std::vector<std::array<unsigned, warpSize>> met;
    std::vector<unsigned> met_in;
    std::map<unsigned, Knowledge> threads;
};

std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages;
std::uintptr_t last_number;
Page* last_page;
std::vector<std::unique_ptr<WatchedBlock>> blocks;
unsigned threads;
std::unordered_map<const void*, Clock> atomics;
unsigned oldest;
std::string message;

WatchedBlock& watched(unsigned number) {
    auto& block = blocks[number];
    if (!block) {
        block = std::make_unique<WatchedBlock>();
        block->stamps.assign(threads, 0);
    }
    return *block;
}

Place& place_of(std::uintptr_t address) {
    const std::uintptr_t number = address / PAGE;
    if (!last_page || number != last_number) {
        auto& page = pages[number];
        if (!page) page = std::make_unique<Page>();
        last_number = number;
        last_page = page.get();
    }
    return (*last_page)[address % PAGE / 4];
}

bool is_known(const WatchedBlock& block, const Access& now, const Access& before) {
    if (before.block == now.block) {
        if (before.thread == now.thread || before.interval < now.interval) return true;
        if (!block.met.empty() && before.thread / warpSize == now.thread / warpSize &&
            before.stamp < block.met[now.thread][before.thread % warpSize])
            return true;
    }
    if (block.known.knows(before)) return true;
    const auto own = block.threads.find(now.thread);
    return own != block.threads.end() && own->second.known.knows(before);
}

std::string line_of(const void* program) {
    Dl_info info;
    if (!dladdr(program, &info)) return "?";
    char command[4096];
    const auto offset = static_cast<const char*>(program) - static_cast<const char*>(info.dli_fbase) - 1;
    std::snprintf(command, sizeof command, "addr2line -e '%s' 0x%tx 2>&1", info.dli_fname, offset);
    std::FILE* pipe = popen(command, "r");
    char said[1024] = "?";
    if (!pipe || !std::fgets(said, sizeof said, pipe)) std::strcpy(said, "?");
    if (pipe) pclose(pipe);
    const std::string line = said;
    const std::size_t name = line.rfind('/') + 1;
    return line.substr(name, line.find_first_of(" \n", name) - name);
}

std::string text(const Access& access) {
    return "thread " + std::to_string(access.thread) + " of block " + std::to_string(access.block) +
           (access.is_write ? " writes in " : " reads in ") + line_of(access.program);
}

void check(const WatchedBlock& block, const Access& now, const Access& before) {
    if (!(before.bytes & now.bytes) || !message.empty()) return;
    if ((before.is_atomic && now.is_atomic) || is_known(block, now, before)) return;
    message = "race: " + text(before) + " and " + text(now) + " the same place, and nothing orders them";
}

bool is_same(const Access& one, const Access& other) {
    return one.block == other.block && one.thread == other.thread && one.interval == other.interval && one.stamp == other.stamp &&
           one.bytes == other.bytes && one.is_atomic == other.is_atomic;
}

void note(Place& place, const WatchedBlock& block, const Access& now) {
    if (now.is_write) {
        if (is_same(place.written, now) && !place.read[0].bytes) return;
        check(block, now, place.written);
        for (const Access& read : place.read) check(block, now, read);
        place = {now, {}};
        return;
    }
    for (const Access& read : place.read)
        if (is_same(read, now)) return;
    check(block, now, place.written);
    for (Access& read : place.read)
        if (!read.bytes || (read.bytes == now.bytes && read.is_atomic == now.is_atomic && is_known(block, now, read))) {
            read = now;
            return;
        }
    place.read[oldest++ % 3] = now;
}

void touch(const void* pointer, std::size_t size, bool is_write, bool is_atomic, const void* program) {
    if (!host::launched || !host::launched->current) return;
    const host::Fibre& fibre = *host::launched->current;
    const auto first = reinterpret_cast<std::uintptr_t>(pointer), end = first + size;
    if (first - reinterpret_cast<std::uintptr_t>(fibre.stack.get()) < host::STACK_BYTES) return;
    for (const dim3* each : {&threadIdx, &blockIdx, &blockDim, &gridDim})
        if (first - reinterpret_cast<std::uintptr_t>(each) < sizeof *each) return;
    const WatchedBlock& block = watched(fibre.block->number);
    Access now{program, fibre.block->number, fibre.thread, block.interval, block.stamps[fibre.thread], 0, is_atomic, is_write};
    for (auto word = first / 4 * 4; word < end; word += 4) {
        const unsigned from = word < first ? first - word : 0, to = end - word < 4 ? end - word : 4;
        now.bytes = static_cast<unsigned char>((1u << to) - (1u << from));
        note(place_of(word), block, now);
    }
}

void began(unsigned count, unsigned per_block) {
    pages.clear();
    last_page = nullptr;
    blocks.clear();
    blocks.resize(count);
    threads = per_block;
    atomics.clear();
    message.clear();
}

void synchronised(unsigned number) {
    WatchedBlock& block = watched(number);
    ++block.interval;
    for (auto& [thread, own] : block.threads) {
        block.known.hear(own.known);
        own.known = {};
    }
}

void met(unsigned number, unsigned warp, unsigned mask) {
    WatchedBlock& block = watched(number);
    if (block.met.empty()) {
        block.met.resize(threads);
        block.met_in.resize((threads + warpSize - 1) / warpSize);
    }
    block.met_in[warp] = block.interval;
    std::array<unsigned, warpSize> all = {};
    Clock heard;
    for (int lane = 0; lane < warpSize; ++lane) {
        if (!(mask >> lane & 1)) continue;
        const unsigned thread = warp * warpSize + lane;
        for (int other = 0; other < warpSize; ++other) all[other] = std::max(all[other], block.met[thread][other]);
        all[lane] = ++block.stamps[thread];
        const auto own = block.threads.find(thread);
        if (own != block.threads.end()) heard.hear(own->second.known);
    }
    for (int lane = 0; lane < warpSize; ++lane) {
        if (!(mask >> lane & 1)) continue;
        block.met[warp * warpSize + lane] = all;
        if (!heard.is_empty()) block.threads[warp * warpSize + lane].known = heard;
    }
}

void fenced() {
    const host::Fibre& fibre = *host::launched->current;
    const unsigned number = fibre.block->number, thread = fibre.thread, warp = thread / warpSize;
    WatchedBlock& block = watched(number);
    Knowledge& own = block.threads[thread];
    own.known.hear(own.unfenced);
    own.unfenced = {};
    own.published = block.known;
    own.published.hear(own.known);
    own.published.intervals.resize(blocks.size());
    own.published.intervals[number] = block.interval;
    own.published.hear(number, thread, {++block.stamps[thread], block.interval});
    if (!block.met.empty() && block.met_in[warp] == block.interval)
        for (int lane = 0; lane < warpSize; ++lane)
            own.published.hear(number, warp * warpSize + lane, {block.met[thread][lane], block.interval});
}

void atomic(const void* where, std::size_t size, bool is_update, const void* program) {
    touch(where, size, is_update, true, program);
    const host::Fibre& fibre = *host::launched->current;
    auto& known = watched(fibre.block->number).threads;
    const auto said = atomics.find(where);
    if (said != atomics.end()) known[fibre.thread].unfenced.hear(said->second);
    const auto own = known.find(fibre.thread);
    if (is_update && own != known.end() && !own->second.published.is_empty()) atomics[where].hear(own->second.published);
}

// Memory may come back from a block that has ended.
void allocated(const void* where, std::size_t size) {
    const auto first = reinterpret_cast<std::uintptr_t>(where);
    for (auto word = first / 4 * 4; word < first + size; word += 4) place_of(word) = {};
}

const bool is_installed = [] {
    host::watcher = {began,
                     synchronised,
                     [](unsigned block) { blocks[block].reset(); },
                     met,
                     fenced,
                     atomic,
                     allocated,
                     []() -> const char* { return message.empty() ? nullptr : message.c_str(); }};
    return true;
}();

}  // namespace

// What g++ makes of a kernel's code. Its own atomics and, with an option, volatile accesses would be others; kernels have none.
#define PROGRAM __builtin_return_address(0)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
#define ACCESS(size)                                                            \
    void __tsan_read##size(void* at) { touch(at, size, false, false, PROGRAM); } \
    void __tsan_write##size(void* at) { touch(at, size, true, false, PROGRAM); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* at, std::size_t size) { touch(at, size, false, false, PROGRAM); }
void __tsan_write_range(void* at, std::size_t size) { touch(at, size, true, false, PROGRAM); }

void* host_memset(void* to, int value, std::size_t size) {
    touch(to, size, true, false, PROGRAM);
    return std::memset(to, value, size);
}
void* host_memcpy(void* to, const void* from, std::size_t size) {
    touch(from, size, false, false, PROGRAM);
    touch(to, size, true, false, PROGRAM);
    return std::memcpy(to, from, size);
}
void* host_memmove(void* to, const void* from, std::size_t size) {
    touch(from, size, false, false, PROGRAM);
    touch(to, size, true, false, PROGRAM);
    return std::memmove(to, from, size);
}
}
