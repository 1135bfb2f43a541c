"""The README's commands, run; its tables, compared with what they give."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import run_as_process, run_in_process

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What keeps a command short without changing what it says.
SMALL = ["epochs=1", "data.train_limit=64", "data.test_limit=32", "tracking=none", "workers=1"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[list[str]]:
    lines = (line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines())
    return [words for line in lines for part in line.split(" && ") if (words := shlex.split(part, comments=True))]


ABLATE = [words[3:] for words in commands() if words[:3] == ["python", "-m", "ablate"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README has its reader write."""
    import numpy as np

    folder = tmp_path_factory.mktemp("readme")
    (folder / "my_losses.py").write_text(
        next(block for block in blocks("python") if block.startswith("# my_losses.py"))
    )
    model = next(block for block in blocks("yaml") if block.startswith("# my_conf/model/small_cnn.yaml"))
    (folder / "my_conf" / "model").mkdir(parents=True)
    (folder / "my_conf" / "model" / "small_cnn.yaml").write_text(model)
    preset = next(block for block in blocks("yaml") if "# my_conf/experiment/my_steps.yaml" in block)
    (folder / "my_conf" / "experiment").mkdir()
    (folder / "my_conf" / "experiment" / "my_steps.yaml").write_text(preset)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(96, 5)), np.arange(96) % 3
    np.savez(folder / "my_data.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    np.savetxt(
        folder / "my_table.csv", np.tile(np.c_[x, y], (2, 1)), delimiter=",", header="a,b,c,d,e,species", comments=""
    )
    np.savetxt(
        folder / "homes.csv",
        np.tile(np.c_[x, x.sum(axis=1)], (2, 1)),
        delimiter=",",
        header="a,b,c,d,e,price",
        comments="",
    )
    tags = (x[:, :3] > 0).astype(int)
    np.savez(folder / "my_tags.npz", x_train=x[:64], y_train=tags[:64], x_test=x[64:], y_test=tags[64:])
    return folder


def test_only_known_programs_appear() -> None:
    assert {words[0] for words in commands()} == {"pip", "python", "pytest", "mlflow"}
    assert len(ABLATE) >= 9


# The command of the first table, which is run as it stands below; and presets, which `test_experiments` runs.
FIRST = ["-m", "loss=mse,ce", "lr=0.1,0.5"]
ELSEWHERE = [["experiment=lenet5_mnist_small"], ["experiment=digit_mlp_small"]]


@pytest.mark.parametrize("arguments", [each for each in ABLATE if each not in (FIRST, *ELSEWHERE)], ids=" ".join)
def test_command_runs(arguments: list[str], folder: Path) -> None:
    small = [item for item in SMALL if "data=xor" not in arguments or not item.startswith("data.")]
    if "--help" in arguments:
        small = []
    done = run_in_process(folder, *arguments, *small)
    assert done.code == 0, done.out + done.err
    assert "failed" not in done.out.split("Keys")[0]


def test_the_preset_has_the_trials_that_are_told(folder: Path) -> None:
    done = run_in_process(folder, "--config-dir", "my_conf", "experiment=my_steps", "dry_run=true")
    assert done.out.startswith("12 trials, factors: lr, optimizer, optimizer.beta2, loss\n"), done.err
    assert "These are 12 trials: two cells, two losses, three seeds." in README


@pytest.fixture(scope="module")
def default_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("default")
    assert FIRST in ABLATE
    done = run_as_process(folder, *FIRST)
    assert done.code == 0, done.err
    return folder, done.out


def rows(text: str) -> dict[str, tuple[str, float]]:
    """Verdict and test accuracy in percent of each `trial loss lr seed` of a results table."""
    found = re.findall(r"^\s+(\d+ +\w+ +[\d.]+ +\d+) +(\w+) +([\d.]+)%", text, re.M)
    return {" ".join(key.split()): (verdict, float(accuracy)) for key, verdict, accuracy in found}


def test_first_table_is_what_the_default_sweep_gives(default_sweep: tuple[Path, str]) -> None:
    printed, written = rows(default_sweep[1]), rows(next(block for block in blocks("text")))
    assert len(written) == 4
    assert printed.keys() == written.keys()
    for key, (verdict, accuracy) in written.items():
        assert printed[key][0] == verdict
        # Other BLAS kernels round differently, and a few of the 300 test images may change sides.
        assert printed[key][1] == pytest.approx(accuracy, abs=1.5)


def test_check_and_explain_run_as_written(default_sweep: tuple[Path, str]) -> None:
    others = [words for words in commands() if words[:2] == ["python", "-m"] and words[2].startswith("ablate.")]
    [sweep] = [path for path in (default_sweep[0] / "runs").iterdir() if path.name != "artifacts"]
    said = {}
    for _, _, module, *arguments in others:
        words = [word.replace("<sweep>", sweep.name) for word in arguments]
        done = subprocess.run(
            [sys.executable, "-m", module, *words], cwd=default_sweep[0], capture_output=True, text=True, timeout=60
        )
        said[module] = (done.returncode, done.stdout)
    assert said.keys() == {"ablate.check", "ablate.explain"}
    assert said["ablate.check"][0] == 1
    assert "wrong sign" in said["ablate.check"][1]
    assert said["ablate.explain"][0] == 0
    assert "collapsed" in said["ablate.explain"][1]


def test_mlflow_ui_shows_the_sweep_with_no_option(default_sweep: tuple[Path, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("mlflow")
    # One process to answer instead of four and those for jobs: each takes seconds to start.
    fewer = {"MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**os.environ, "MLFLOW_PORT": str(port), "MLFLOW_DISABLE_TELEMETRY": "true", **fewer}
    with subprocess.Popen(
        [program, "ui"],
        cwd=default_sweep[0],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            runs = search_runs(port, deadline=time.monotonic() + 60)
        finally:
            os.killpg(server.pid, 15)
    assert len(runs) == 4
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}


def search_runs(port: int, deadline: float) -> list[dict[str, dict[str, str]]]:
    """The runs of the first experiment, asked of the server as its page asks."""
    link = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search"
    question = json.dumps({"experiment_ids": ["1"]}).encode()
    while True:
        try:
            request = urllib.request.Request(link, question, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                return list(json.load(answer).get("runs", []))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
