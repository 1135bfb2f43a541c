// The fibres behind cuda_host.hpp: who runs, who waits for whom, and what is wrong with it.
#include "fibres.hpp"

#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {
namespace {

// So often all threads that pause in a loop are asked again while nothing else happens in the launch. It counts turns and
// not time: however slow a kernel computes, threads that wait for it take no turn meanwhile.
constexpr unsigned long PATIENCE = 10'000;

// A thread that so often finds the same by atomics, without a pause, has to let the others run.
constexpr unsigned POLLS = 16;

// A thread that wrote here has nearly used up its stack. What lies below is room for the rest of its writing.
constexpr std::size_t STACK_MARK = 4096;
constexpr std::uint64_t MARK = 0x6b73617473646e65u;

std::uint64_t& mark_of(Fibre& fibre) { return *reinterpret_cast<std::uint64_t*>(fibre.stack.get() + STACK_MARK); }

std::string text(const Line& line) {
    const std::string file = line.file;
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(line.number);
}

bool operator==(const Line& one, const Line& other) {
    return one.number == other.number && !std::strcmp(one.file, other.file);
}

std::string who(const Block& block, unsigned thread) {
    return "thread " + std::to_string(thread) + " of block " + std::to_string(block.number);
}

// The caller of the launch goes on if `to` is nothing.
void go_to(Fibre* to) {
    Launch& l = *launched;
    Fibre* self = l.current;
    if (to == self) return;
    if (self && mark_of(*self) != MARK && l.error.empty()) {
        l.error = who(*self->block, self->thread) + " needs more stack than " + std::to_string(STACK_BYTES) + " bytes";
        to = nullptr;
    }
    l.current = to;
    l.polls = 0;
    Context &from = self ? self->context : l.caller, &next = to ? to->context : l.caller;
#if defined(__SANITIZE_ADDRESS__)
    void** fake = self ? &self->fake_stack : &l.caller_fake_stack;
    __sanitizer_start_switch_fiber(fake, to ? to->stack.get() : l.caller_bottom, to ? STACK_BYTES : l.caller_size);
    from.go_to(next);
    __sanitizer_finish_switch_fiber(*fake, nullptr, nullptr);
#else
    from.go_to(next);
#endif
}

[[noreturn]] void fail(const std::string& what) {
    launched->error = what;
    go_to(nullptr);
    std::abort();
}

void run_threads(Fibre& self);

[[noreturn]] void fibre_main() {
    Launch& l = *launched;
#if defined(__SANITIZE_ADDRESS__)
    const bool is_first = !l.caller_bottom;
    const void* bottom;
    std::size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (is_first) l.caller_bottom = bottom, l.caller_size = size;
#endif
    for (;;) run_threads(*l.current);
}

// A fibre that takes up threads of the block which have not begun.
Fibre* fibre_for(Block& block) {
    Launch& l = *launched;
    if (l.spare.empty()) {
        l.fibres.push_back(std::make_unique<Fibre>());
        Fibre* made = l.fibres.back().get();
        made->stack.reset(new char[STACK_BYTES]);
        mark_of(*made) = MARK;
        // Stacks that all began at the same place of a page would share few lines of the cache.
        const std::size_t shift = l.fibres.size() * 320 % 8192;
        made->context.begin(made->stack.get(), STACK_BYTES - shift, fibre_main);
        l.spare.push_back(made);
    }
    Fibre* fibre = l.spare.back();
    l.spare.pop_back();
    fibre->block = &block;
    fibre->is_taken = false;
    return fibre;
}

Block& begin_block() {
    Launch& l = *launched;
    if (l.spare_blocks.empty()) {
        l.blocks.push_back(std::make_unique<Block>());
        Block& made = *l.blocks.back();
        made.order.resize(l.threads);
        for (unsigned thread = 0; thread < l.threads; ++thread) made.order[thread] = thread;
        made.warps.resize((l.threads + warpSize - 1) / warpSize);
        l.spare_blocks.push_back(&made);
    }
    Block& block = *l.spare_blocks.back();
    l.spare_blocks.pop_back();
    const unsigned number = l.order[l.started++];
    block.number = number;
    block.index = {number % gridDim.x, number / gridDim.x % gridDim.y, number / (gridDim.x * gridDim.y)};
    block.next = block.ended = 0;
    l.random.shuffle(block.order);
    ++l.alive;
    return block;
}

void end_block(Block& block) {
    block.shared.clear();
    if (watcher.ended) watcher.ended(block.number);
    launched->spare_blocks.push_back(&block);
    --launched->alive;
}

// Who runs next. Threads that pause in a loop are asked after an atomic has changed something, and when nobody else can
// run, in a new order each time.
Fibre* pick() {
    Launch& l = *launched;
    if (l.ready.empty()) {
        if (l.started < l.order.size()) {
            l.ready.push_back(fibre_for(begin_block()));
        } else if (!l.spinning.empty() && ++l.rounds <= PATIENCE) {
            l.random.shuffle(l.spinning);
            l.ready.swap(l.spinning);
        }
    }
    if (l.ready.empty()) return nullptr;
    Fibre* next = l.ready.back();
    l.ready.pop_back();
    return next;
}

void enter(Fibre& self) {
    threadIdx = self.index;
    blockIdx = self.block->index;
}

// The running thread has to wait: its fibre is its own from now on, and another one takes up the block's other threads.
void wait(Fibre& self) {
    Launch& l = *launched;
    if (!self.is_taken) {
        self.is_taken = true;
        if (self.block->next < self.block->order.size()) l.ready.push_back(fibre_for(*self.block));
    }
    go_to(pick());
    enter(self);
}

void tell_barrier(const Block& block) {
    fail("the barrier in " + text(block.line) + " is reached by " + std::to_string(block.arrived) + " of " +
         std::to_string(launched->threads) + " threads of block " + std::to_string(block.number));
}

void run_threads(Fibre& self) {
    Launch& l = *launched;
    Block& block = *self.block;
    while (!self.is_taken && block.next < block.order.size()) {
        const unsigned t = self.thread = block.order[block.next++];
        self.index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
        enter(self);
        l.body(l.of);
        ++block.ended;
        l.rounds = 0;
        if (block.arrived && block.arrived + block.ended == l.threads) tell_barrier(block);
    }
    if (block.ended == l.threads) end_block(block);
    l.spare.push_back(&self);
    go_to(pick());
}

std::string lanes(unsigned mask) {
    std::string names;
    for (int lane = 0; lane < warpSize; ++lane)
        if (mask >> lane & 1) names += (names.empty() ? "" : ", ") + std::to_string(lane);
    return names;
}

// The lanes of `mask` that there are: the last warp of a block may be smaller.
unsigned existing(unsigned warp, unsigned mask) {
    const unsigned lanes = launched->threads - warp * warpSize;
    return lanes < warpSize ? mask & ((1u << lanes) - 1) : mask;
}

// Nobody can go on though not all have ended: what is the matter?
std::string standstill() {
    const Launch& l = *launched;
    for (const auto& block : l.blocks)
        for (unsigned warp = 0; warp < block->warps.size(); ++warp)
            for (const Meeting& meeting : block->warps[warp])
                return "the exchange in " + text(meeting.line) + " is not reached by lanes " +
                       lanes(existing(warp, meeting.mask) & ~meeting.arrived) + " of warp " + std::to_string(warp) +
                       " of block " + std::to_string(block->number) + ", which its mask names";
    // A barrier that a thread misses was told of when that thread ended, so what remains is loops.
    const Fibre& fibre = *l.spinning.front();
    return who(*fibre.block, fibre.thread) + " waits for ever in " + text(fibre.spins);
}

}  // namespace

void barrier(Line line) {
    Launch& l = *launched;
    Fibre& self = *l.current;
    Block& block = *self.block;
    l.rounds = 0;
    if (block.arrived && !(block.line == line))
        fail("threads of block " + std::to_string(block.number) + " wait at the barriers in " + text(block.line) +
             " and in " + text(line));
    block.line = line;
    ++block.arrived;
    if (block.arrived + block.ended < l.threads) {
        block.waiting.push_back(&self);
        wait(self);
        return;
    }
    if (block.ended) tell_barrier(block);
    block.arrived = 0;
    if (watcher.synchronised) watcher.synchronised(block.number);
    // The last one goes on at once, the others after it in a new order.
    l.random.shuffle(block.waiting);
    l.ready.insert(l.ready.end(), block.waiting.begin(), block.waiting.end());
    block.waiting.clear();
}

void spin(Line line) {
    Fibre& self = *launched->current;
    self.spins = line;
    launched->polls = 0;
    launched->spinning.push_back(&self);
    wait(self);
}

// Hand in a value and get that of another lane, once all lanes of the mask have handed in theirs.
std::uint64_t exchange(unsigned mask, std::uint64_t value, int source, Line line) {
    Launch& l = *launched;
    Fibre& self = *l.current;
    Block& block = *self.block;
    const unsigned number = self.thread / warpSize, lane = self.thread % warpSize, bit = 1u << lane;
    std::vector<Meeting>& warp = block.warps[number];
    l.rounds = 0;
    if (!(mask & bit)) fail(who(block, self.thread) + " is not in the mask of its own exchange in " + text(line));
    std::size_t place = 0;
    while (place < warp.size() && warp[place].mask != mask) ++place;
    if (place == warp.size()) {
        warp.emplace_back();
        warp[place].mask = mask;
        warp[place].arrived = 0;
        warp[place].line = line;
    }
    Meeting& meeting = warp[place];
    if (!(meeting.line == line))
        fail("lanes of warp " + std::to_string(number) + " of block " + std::to_string(block.number) +
             " meet at the exchanges in " + text(meeting.line) + " and in " + text(line));
    meeting.arrived |= bit;
    meeting.fibres[lane] = &self;
    meeting.values[lane] = value;
    self.source = source & (warpSize - 1);
    if (meeting.arrived != existing(number, mask)) {
        wait(self);
        return self.got;
    }
    const std::size_t first = l.ready.size();
    for (unsigned at = 0; at < warpSize; ++at) {
        if (!(meeting.arrived >> at & 1)) continue;
        Fibre& fibre = *meeting.fibres[at];
        fibre.got = meeting.arrived >> fibre.source & 1 ? meeting.values[fibre.source] : ~std::uint64_t{0};
        if (&fibre != &self) l.ready.push_back(&fibre);
    }
    for (std::size_t end = l.ready.size(); end > first + 1; --end)
        std::swap(l.ready[end - 1], l.ready[first + l.random.below(end - first)]);
    if (watcher.met) watcher.met(block.number, number, meeting.arrived);
    meeting = warp.back();
    warp.pop_back();
    return self.got;
}

int lane() { return static_cast<int>(launched->current->thread % warpSize); }

void* shared_bytes(const void* key, std::size_t size) {
    auto& arrays = launched->current->block->shared;
    for (auto& [of, array] : arrays)
        if (of == key) return array.get();
    arrays.emplace_back(key, new char[size]);
    void* array = arrays.back().second.get();
    std::memset(array, 0xff, size);
    if (watcher.allocated) watcher.allocated(array, size);
    return array;
}

void atomic(const void* where, std::size_t size, bool is_update, bool is_change, Line line) {
    Launch& l = *launched;
    if (watcher.atomic) watcher.atomic(where, size, is_update, __builtin_return_address(0));
    if (is_change) {
        // Who waits for this looks before the running thread's block goes far: later it would hear of more than it waited for,
        // and race detection would take that for an order.
        l.rounds = 0;
        l.random.shuffle(l.spinning);
        l.ready.insert(l.ready.end(), l.spinning.begin(), l.spinning.end());
        l.spinning.clear();
    } else if (++l.polls == POLLS) {
        spin(line);
    }
}

void fence() {
    if (watcher.fenced) watcher.fenced();
}

// Run `body` as every thread of the grid. Returns what went wrong, or nothing.
const char* launch(const unsigned* grid, const unsigned* block, unsigned seed, void (*body)(void*), void* of) {
    static std::string error;
    Launch l;
    launched = &l;
    l.body = body;
    l.of = of;
    l.random.state = seed;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    l.threads = block[0] * block[1] * block[2];
    l.order.resize(grid[0] * grid[1] * grid[2]);
    for (unsigned number = 0; number < l.order.size(); ++number) l.order[number] = number;
    l.random.shuffle(l.order);
    if (watcher.began) watcher.began(static_cast<unsigned>(l.order.size()), l.threads);
    if (Fibre* first = pick()) go_to(first);
    if (l.error.empty() && l.alive) l.error = standstill();
    if (l.error.empty() && watcher.found && watcher.found()) l.error = watcher.found();
    launched = nullptr;
    error = l.error;
    return error.empty() ? nullptr : error.c_str();
}

}  // namespace host

// Memory that nobody has written is NaN, and no number.
extern "C" void* host_allocate(std::size_t size) {
    void* memory = std::malloc(size);
    return memory ? std::memset(memory, 0xff, size) : nullptr;
}

extern "C" void host_free(void* memory) { std::free(memory); }
