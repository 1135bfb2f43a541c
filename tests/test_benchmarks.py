"""The benchmarks' command and page; what they measure is not a test's business."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import environment

from benchmarks import marks

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


def gpu(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=300, check=False
    )


def write_mnist(folder: Path, rows: int) -> None:
    """The four files with noise in them, to train and to test on."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        for name, shape, above in (("images-idx3", (rows, 28, 28), 256), ("labels-idx1", (rows,), 10)):
            head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
            values = rng.integers(0, above, shape, dtype=np.uint8)
            (folder / f"{part}-{name}-ubyte").write_bytes(head + values.tobytes())


def test_without_a_gpu_the_gpu_benchmark_ends_with_code_2_and_one_line() -> None:
    done = gpu(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("benchmarks.gpu: ")


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation compiles the kernels with g++")
def test_the_gpu_benchmark_compares_the_emulated_device_with_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    write_mnist(tmp_path / "mnist", rows=8)
    done = gpu("--device", "emulated", "--limit", "8", "--lanes", "1,2", ABLATE_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for who in ("ours, persistent, 2 lanes", "ours, stepwise", "PyTorch eager, channels_last", "PyTorch vmap, eager"):
        assert who in done.stdout


def test_figures_are_put_into_their_place_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- one -->\nold\n<!-- end of one -->\nbelow\n<!-- two -->\nkept\n<!-- end of two -->\n")
    marks.put(page, "one", "new\nlines")
    marks.put(page, "one", "newer")
    assert page.read_text() == (
        "above\n<!-- one -->\nnewer\n<!-- end of one -->\nbelow\n<!-- two -->\nkept\n<!-- end of two -->\n"
    )


@pytest.mark.parametrize("text", ["nothing", "<!-- one -->\n", "<!-- end of one -->\n<!-- one -->\n"])
def test_a_page_without_the_place_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="no page with the lines <!-- one --> and <!-- end of one -->"):
        marks.put(page, "one", "new")
    assert page.read_text() == text
    with pytest.raises(ValueError, match="no page"):
        marks.put(tmp_path / "none.md", "one", "new")
