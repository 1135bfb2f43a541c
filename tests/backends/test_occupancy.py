"""How many blocks are resident, against NVIDIA's own calculator for any architecture, a header of the toolkit."""

import shutil
import subprocess
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from ablate.backends.cuda.device import THREADS
from ablate.backends.cuda.gpu import SHARED_AT_ONCE, GpuKernel

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")

# compute capability: threads, shared memory and blocks of a multiprocessor, shared memory reserved for a block
ARCHITECTURES = {
    (7, 5): (1024, 64 << 10, 16, 0),
    (8, 0): (2048, 164 << 10, 32, 1024),
    (8, 6): (1536, 100 << 10, 16, 1024),
    (9, 0): (2048, 228 << 10, 32, 1024),
    (12, 0): (1536, 100 << 10, 24, 1024),
}
REGISTERS, REGISTER_STEP, BLOCK_SHARED, SHARED_STEP = 1 << 16, 6, 48 << 10, 448

# Prints "registers shared blocks" for a multiprocessor with the properties in its arguments.
CALCULATOR = """
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cuda_occupancy.h>

int main(int, char** given) {
    int number[10];
    for (int i = 0; i < 10; ++i) number[i] = std::atoi(given[i + 1]);
    cudaOccDeviceProp device = cudaOccDeviceProp();
    device.computeMajor = number[0], device.computeMinor = number[1];
    device.maxThreadsPerMultiprocessor = number[2], device.sharedMemPerMultiprocessor = number[3];
    device.reservedSharedMemPerBlock = number[4];
    device.regsPerBlock = device.regsPerMultiprocessor = number[5];
    device.sharedMemPerBlock = device.sharedMemPerBlockOptin = number[6];
    device.maxThreadsPerBlock = 1024, device.warpSize = 32, device.numSms = 1;
    for (int registers = 1; registers <= 255; registers += number[8])
        for (int shared = 0; shared <= number[6]; shared += number[9]) {
            cudaOccFuncAttributes kernel;
            kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = shared;
            cudaOccDeviceState state;
            cudaOccResult result;
            if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, number[7], 0)) return 1;
            std::printf("%d %d %d\\n", registers, shared, result.activeBlocksPerMultiprocessor);
        }
}
"""
Calculator = Callable[..., str]


@pytest.fixture(scope="module")
def calculator(tmp_path_factory: pytest.TempPathFactory) -> Calculator:
    folder = tmp_path_factory.mktemp("calculator")
    (folder / "calculator.cpp").write_text(CALCULATOR)
    subprocess.run(["nvcc", "-o", folder / "calculator", folder / "calculator.cpp"], check=True)

    def run(*numbers: int) -> str:
        command = [folder / "calculator", *map(str, numbers)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


def resident(capability: tuple[int, int], registers: int, shared: int) -> int:
    """What the engine reckons with on one multiprocessor."""
    threads, memory, blocks, reserved = ARCHITECTURES[capability]
    attributes = {
        "MAX_REGISTERS_PER_MULTIPROCESSOR": REGISTERS,
        "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": memory,
        "RESERVED_SHARED_MEMORY_PER_BLOCK": reserved,
        "MAX_THREADS_PER_MULTIPROCESSOR": threads,
        "MAX_BLOCKS_PER_MULTIPROCESSOR": blocks,
        "MULTIPROCESSOR_COUNT": 1,
    }
    card = SimpleNamespace(attribute=attributes.__getitem__, ask=lambda _, asked: asked())
    function = SimpleNamespace(num_regs=registers, shared_size_bytes=shared)
    return GpuKernel("kernel", function, card, "f").resident  # type: ignore[arg-type]


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_no_more_blocks_than_fit_and_hardly_fewer(capability: tuple[int, int], calculator: Calculator) -> None:
    """One too many would wait for ever. Fewer only where shared memory is handed out in finer pieces than supposed."""
    threads, memory, _, reserved = ARCHITECTURES[capability]
    given = (*capability, threads, memory, reserved, REGISTERS, BLOCK_SHARED, THREADS, REGISTER_STEP, SHARED_STEP)
    lines = calculator(*given).splitlines()
    assert len(lines) > 4000
    for line in lines:
        registers, shared, blocks = map(int, line.split())
        reckoned = resident(capability, registers, shared)
        assert reckoned <= blocks, line
        if shared % SHARED_AT_ONCE == 0:
            assert reckoned == blocks, line
