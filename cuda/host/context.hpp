// A flow of execution with a stack of its own: how one begins, and how to go from one to another.
//
// ucontext does it everywhere but asks the kernel for the signal mask at every switch; on x86-64 a switch is the few registers
// that a function must leave as they were. HOST_PORTABLE, by -D: ucontext here too.
#pragma once

#include <cstddef>
#include <cstdint>

#include <ucontext.h>

namespace host {

#if defined(__x86_64__) && !defined(HOST_PORTABLE)

asm(R"(
.text
.p2align 4
.type host_switch, @function
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size host_switch, .-host_switch
)");
extern "C" void host_switch(void** from, void* to) asm("host_switch");

struct Context {
    void* top = nullptr;

    void begin(char* stack, std::size_t size, void (*entry)()) {
        // What host_switch takes up: six registers, where to go, and nowhere to return to. A function finds the stack 8 below
        // a multiple of 16.
        const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(stack + size) & ~std::uintptr_t{15};
        auto* frame = reinterpret_cast<std::uintptr_t*>(end - 64);
        for (int word = 0; word < 8; ++word) frame[word] = 0;
        frame[6] = reinterpret_cast<std::uintptr_t>(entry);
        top = frame;
    }
    void go_to(Context& to) { host_switch(&top, to.top); }
};

#else

struct Context {
    ucontext_t registers;

    void begin(char* stack, std::size_t size, void (*entry)()) {
        getcontext(&registers);
        registers.uc_stack.ss_sp = stack;
        registers.uc_stack.ss_size = size;
        registers.uc_link = nullptr;
        makecontext(&registers, entry, 0);
    }
    void go_to(Context& to) { swapcontext(&registers, &to.registers); }
};

#endif

}  // namespace host
