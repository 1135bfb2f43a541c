"""The benchmarks' command and page; what they measure is not a test's business."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

ROOT = Path(__file__).parent.parent


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nonsense"], "nonsense: no such case; choose from lenet5_mnist"), (["--reuse", "none.json"], "no such file")],
)
def test_a_wrong_command_ends_with_code_2(arguments: list[str], said: str) -> None:
    done = benchmarks(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def measured(samples: dict[str, list[float]], kernels: str) -> dict[str, object]:
    machine = {"processor": "a processor", "versions": "versions", "blas": kernels, "torch": None}
    return {"samples": samples, "rounds": 3, "date": "2026-01-01", "machine": machine}


def test_the_page_says_whether_a_target_is_met() -> None:
    from benchmarks import page

    peers = ("PyTorch, 2 threads", "PyTorch, 1 thread", "PyTorch channels_last, 2 threads")
    slow = {"ours": [1.0, 2.0, 1.0], peers[0]: [1.9, 9.0, 1.9], peers[1]: [5.0] * 3, peers[2]: [4.0] * 3}
    results = {"lenet5_mnist": {"SkylakeX": measured(slow, "SkylakeX"), "Haswell": measured(slow, "Haswell")}}
    avx512, avx2 = page.races(results).lines
    # The median of the rounds' ratios to the fastest peer is 1.9: enough for the target with AVX2, not with AVX-512.
    assert avx512[4:7] == ["1.90 (1.90 to 4.50)", "2", "no"]
    assert avx2[4:7] == ["1.90 (1.90 to 4.50)", "1.6", "yes"]
