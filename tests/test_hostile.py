"""What an unlucky or hostile user does: losses that exit, values full of brackets, stores that never answer."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import Done, environment
from test_diagnose import _summary as summary

from ablate.diagnosis import verdicts as diagnose
from ablate.records import tracking

SMALL = ("epochs=1", "model=softmax_regression", "data.train_limit=64", "data.test_limit=40", "check=false")
QUIET = (*SMALL, "tracking=none")

LOSSES = """
import sys
import numpy as np

class CrossEntropy:
    output = "softmax"

    def __init__(self, m=None):
        pass

    def value(self, z, y):
        return -(y * np.log(self._p(z))).sum(axis=1)

    def gradient(self, z, y):
        return self._p(z) - y

    def _p(self, z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

class ExitsInValue(CrossEntropy):
    def value(self, z, y):
        sys.exit(0)

class ExitsAtOnce(CrossEntropy):
    def __init__(self):
        sys.exit(5)

class OutputRaises(CrossEntropy):
    @property
    def output(self):
        raise RuntimeError("not today")

class OutputIsList(CrossEntropy):
    output = ["softmax"]

class BelowZero(CrossEntropy):
    def value(self, z, y):
        return super().value(z, y) - 1000

class LongComplaint(CrossEntropy):
    def value(self, z, y):
        raise ValueError("word " * 3000)
"""


@pytest.fixture
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile.py").write_text(LOSSES)
    # In this process an earlier test may have imported another folder's module of that name.
    monkeypatch.delitem(sys.modules, "hostile", raising=False)


def results(folder: Path) -> pd.DataFrame:
    [path] = folder.glob("runs/*/results.csv")
    return pd.read_csv(path).set_index("trial")


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "-m lr=range(0,0)": "lr=range(0,0): 0 trials",
        "-m seed=range(0,1000000)": "1000000 trials",
        "-m lr=0.1,0.10": "lr=0.1: trials 0 and 1 are the same",
        "-m workers=1,2": "workers: it concerns the whole sweep",
        "-m dry_run=true,false": "dry_run: it concerns the whole sweep",
        "-m tracking=none,mlflow": "tracking: it concerns the whole sweep",
        "loss.name=mse": "write loss=mse",
        "lr=1e-300": "lr=1e-300: in float32 this is 0",
        "lr=1e300": "lr=1e+300: in float32 this is inf",
        "optimizer=adam optimizer.epsilon=1e-300": "optimizer.epsilon=1e-300",
        "loss=custom loss.target=hostile.ExitsAtOnce": "ExitsAtOnce() raised SystemExit",
        "loss=custom loss.target=hostile.OutputRaises": "its output cannot be read",
        "loss=custom loss.target=hostile.OutputIsList": "expected 'softmax', 'sigmoid' or 'identity'",
    }.items(),
)
def test_refused_in_one_line(ablate: Callable[..., Done], losses: None, tmp_path: Path, words: str, said: str) -> None:
    done = ablate(*SMALL, *words.split())
    assert (done.code, said in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_loss_that_exits_fails_its_own_trial_only(ablate: Callable[..., Done], losses: None, tmp_path: Path) -> None:
    targets = "loss.target=hostile.ExitsInValue,hostile.CrossEntropy"
    done = ablate(*QUIET, "-m", "workers=1", "loss=custom", targets)
    assert done.code == 1
    assert results(tmp_path).status.tolist() == ["failed", "finished"]
    assert "SystemExit" in results(tmp_path).why[0]


def test_brackets_in_a_value_are_no_markup(ablate: Callable[..., Done], losses: None) -> None:
    target = ("loss=custom", "loss.target=hostile.CrossEntropy")
    done = ablate(*QUIET, "-m", "workers=1", *target, "+loss.args.m=[a],[b,c],[/d]")
    assert done.code == 0, done.err
    for value in ("[a]", "[b,c]", "[/d]"):
        assert f" {value} " in done.out.split("verdict")[1]


def test_a_long_complaint_is_cut_in_the_table(ablate: Callable[..., Done], losses: None, tmp_path: Path) -> None:
    done = ablate(*QUIET, "workers=1", "loss=custom", "loss.target=hostile.LongComplaint")
    assert done.code == 1
    assert 100 < len(results(tmp_path).why[0]) < 700


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    words = " ".join([sys.executable, "-m", "ablate", *QUIET, "lr=0.1,0.2", "-m"])
    pipe = subprocess.run(
        ["bash", "-c", f"{words} | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (pipe.stdout.strip(), pipe.stderr) == ("0", "")
    assert len(results(tmp_path)) == 2


# Each command in a copy of one process, with a pipe for its output whose reader has gone: code and complaints.
UNREAD = """
import gc, json, os, runpy, sys, tempfile
import ablate.commands.explain, ablate.commands.launcher, ablate.report.plots

gc.freeze()
ended = []
for module, *arguments in json.loads(sys.argv[1]):
    read, write = os.pipe()
    os.close(read)
    with tempfile.TemporaryFile("w+") as said:
        if not (child := os.fork()):
            os.dup2(write, 1)
            os.dup2(said.fileno(), 2)
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__")
            sys.exit(0)
        os.close(write)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        ended.append([code, said.read()])
print(json.dumps(ended))
"""


def test_no_command_complains_that_nobody_reads(ablate: Callable[..., Done], tmp_path: Path) -> None:
    """What is printed at once and what is printed at the end, where the output is buffered and where it is not."""
    assert ablate(*QUIET, "workers=1").code == 0
    [trial] = tmp_path.glob("runs/*/0")
    words = {
        "": ["ablate --help", "ablate -m dry_run=true lr=0.1,0.2", "ablate.explain --help"],
        "1": ["ablate --cfg job", "ablate.report --help", f"ablate.report {trial.parent}", f"ablate.explain {trial}"],
    }
    words[""] += words["1"]
    for unbuffered, lines in words.items():
        program = [sys.executable, "-c", UNREAD, json.dumps([line.split() for line in lines])]
        changed = environment(PYTHONUNBUFFERED=unbuffered)
        done = subprocess.run(program, cwd=tmp_path, env=changed, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for line, ended in zip(lines, json.loads(done.stdout), strict=True):
            assert ended == [0, ""], line


def test_a_store_that_is_a_folder_is_given_up_at_once(ablate: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    start = time.monotonic()
    done = ablate(*SMALL)
    assert done.code == 0
    assert done.err.count("cannot be used") == 1
    assert time.monotonic() - start < 30


def test_a_server_that_never_answers_does_not_hold_the_sweep(
    ablate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "STALLED_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        done = ablate(*SMALL, f"tracking.uri=http://127.0.0.1:{silent.getsockname()[1]}")
    assert done.code == 0
    assert "no answer" in done.err
    assert time.monotonic() - start < 20  # MLflow by itself would try for longer
    assert results(tmp_path).status.tolist() == ["finished"]


def test_a_loss_below_zero_that_falls_has_not_diverged() -> None:
    falling = summary(initial_loss=-7.3, train_loss=-8.1, test_losses=[-7.0, -7.5, -8.0], test_accuracy=0.95)
    assert diagnose.verdict(falling).name == "trained"
    rising = replace(falling, train_loss=0.5)
    assert diagnose.verdict(rising).name == "diverged"


def test_all_predictions_right_on_a_test_set_of_one_class_is_no_collapse() -> None:
    right = summary(test_accuracy=1.0, predicted=[5, 0], labels=[5, 0])
    assert diagnose.verdict(right).name == "trained"


def test_a_loss_below_zero_beside_another_is_drawn(ablate: Callable[..., Done], losses: None, tmp_path: Path) -> None:
    done = ablate(*QUIET, "-m", "workers=1", "loss=custom", "loss.target=hostile.BelowZero,hostile.CrossEntropy")
    assert (done.code, done.err) == (0, "")
    assert len(list(tmp_path.glob("runs/*/curves.png"))) == 1


def test_a_wrong_gradient_is_told_at_the_end_though_it_trained(ablate: Callable[..., Done]) -> None:
    done = ablate("-m", "tracking=none", "workers=1", "epochs=4", "model=mlp", "bug=bias_gradient,none", "lr=1")
    assert "trained, test accuracy" in done.out
    assert "the check before training found" in done.out.split("seconds")[1]
