"""What MLflow is told of a sweep, and that a sweep does not depend on it."""

import csv
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import environment, run_in_process

from ablate.records import tracking

XOR = ["data=xor", "model=softmax_regression", "workers=1", "log_every=1"]
LOSS = """
import time
import numpy as np

class Raises:
    output = "softmax"
    calls = 0
    def value(self, z, y):
        return np.square(z).sum(axis=1)
    def gradient(self, z, y):
        self.calls += 1
        if self.calls > 50:
            raise ValueError("not today")
        return 2 * z

# Leaves the cores to the others while the test waits.
class Leisurely(Raises):
    def gradient(self, z, y):
        time.sleep(0.02)
        return 2 * z
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in it, since making one takes seconds."""
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Path:
    """Two trials of 1,500 epochs, one of which diverges at once."""
    done = run_in_process(folder, "-m", *XOR, "epochs=1500", "loss.from_logits=false", "lr=0.1,1e30")
    assert (done.code, done.err) == (0, "")
    assert "mlflow ui" in done.out
    return only_sweep(folder)


def only_sweep(folder: Path, *others: Path) -> Path:
    [sweep] = [path for path in (folder / "runs").iterdir() if path.name[:2] == "20" and path not in others]
    return sweep


def client(folder: Path) -> Any:
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def runs(folder: Path, sweep: Path) -> list[Any]:
    """The MLflow runs of a sweep in the order of its trials."""
    store = client(folder)
    experiment = store.get_experiment_by_name("ablate")
    found = store.search_runs([experiment.experiment_id], f"tags.sweep = '{sweep.name}'")
    assert found
    return sorted(found, key=lambda run: run.info.run_name.rpartition("#")[2])


def rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_flat_run_a_trial(folder: Path, sweep: Path) -> None:
    found = runs(folder, sweep)
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
    assert [run.info.run_id for run in found] == [row["run_id"] for row in rows(sweep)]
    assert all("mlflow.parentRunId" not in run.data.tags for run in found)
    assert [run.info.run_name.split()[0] for run in found] == ["0.1", "1e+30"]


def test_tags(folder: Path, sweep: Path) -> None:
    described = yaml.safe_load((sweep / "sweep.yaml").read_text(encoding="utf-8"))
    for run, row, trial in zip(runs(folder, sweep), rows(sweep), described["trials"], strict=True):
        tags = run.data.tags
        assert (tags["sweep"], tags["config"]) == (sweep.name, trial["config"])
        assert (tags["verdict"], tags["why"]) == (row["verdict"], row["why"])
        assert "git.commit" in tags


def test_parameters(folder: Path, sweep: Path) -> None:
    params = [run.data.params for run in runs(folder, sweep)]
    assert [each["cell"] for each in params] == ["lr=0.1", "lr=1e+30"]
    choices = {"loss": "ce", "model": "softmax_regression", "optimizer": "sgd", "data": "xor", "stop": "never"}
    for each in params:
        assert each | choices == each
        assert (each["epochs"], each["seed"], each["shuffle"]) == ("1500", "0", "true")
        assert (each["loss.from_logits"], each["batch_size"]) == ("false", "null")


def test_the_data_set_is_an_input(folder: Path, sweep: Path) -> None:
    for run in runs(folder, sweep):
        [one] = run.inputs.dataset_inputs
        assert one.dataset.name == "xor"
        assert one.dataset.digest


def test_the_files_are_artifacts_below_runs(folder: Path, sweep: Path) -> None:
    store, [first, _] = client(folder), runs(folder, sweep)
    names = {item.path for item in store.list_artifacts(first.info.run_id)}
    assert names >= {"metrics.jsonl", "init.npz", "final.npz", "predictions.npz"}
    [kept] = (folder / "runs" / "artifacts").glob(f"**/{first.info.run_id}/artifacts/final.npz")
    assert kept.read_bytes() == (sweep / "0" / "final.npz").read_bytes()


@pytest.mark.parametrize("name", ["train/loss", "test/loss", "test/accuracy", "step/loss", "grad/norm"])
def test_metrics_are_thinned_and_the_last_is_kept(folder: Path, sweep: Path, name: str) -> None:
    history = client(folder).get_metric_history(runs(folder, sweep)[0].info.run_id, name)
    steps = [point.step for point in history]
    assert 500 <= len(steps) <= 1000
    assert steps == sorted(set(steps))
    assert max(later - earlier for earlier, later in pairwise(steps)) <= 6  # evenly spaced
    assert steps[-1] == (1499 if name.startswith(("step/", "grad/")) else 1500)
    assert all(math.isfinite(point.value) for point in history)
    local = [line for line in (sweep / "0" / "metrics.jsonl").read_text().splitlines() if f'"{name}"' in line]
    assert history[-1].value == pytest.approx(yaml.safe_load(local[-1])[name])


def test_a_large_sweep_sends_fewer_points_of_every_metric(
    folder: Path, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SWEEP_POINTS", 2 * tracking.MIN_POINTS)
    arguments = ["-m", *XOR, "epochs=200", "seed=0,1", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]
    assert run_in_process(tmp_path, *arguments).code == 0
    for run in runs(folder, only_sweep(tmp_path)):
        history = {name: client(folder).get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        assert {points[-1].step for name, points in history.items() if name.startswith(("test/", "watch/"))} == {200}
        counts = {name: len(points) for name, points in history.items() if not name.startswith("check/")}
        assert min(counts.values()) >= 20
        assert max(counts.values()) <= tracking.MIN_POINTS


def test_the_last_finite_point_of_a_trial_that_diverges_is_kept(folder: Path, sweep: Path) -> None:
    lines = [json.loads(line) for line in (sweep / "1" / "metrics.jsonl").read_text().splitlines()]
    for name in ("train/loss", "test/loss", "step/loss"):
        finite = [line["step" if name == "step/loss" else "epoch"] for line in lines if line.get(name) is not None]
        history = client(folder).get_metric_history(runs(folder, sweep)[1].info.run_id, name)
        assert history[-1].step == finite[-1], name


def test_nothing_that_is_not_finite_is_sent(folder: Path, sweep: Path) -> None:
    assert "null" in (sweep / "1" / "metrics.jsonl").read_text(encoding="utf-8")
    store, run = client(folder), runs(folder, sweep)[1]
    assert run.data.tags["verdict"] == "diverged"
    sent = [point.value for name in run.data.metrics for point in store.get_metric_history(run.info.run_id, name)]
    assert sent
    assert all(abs(value) < 1e300 for value in sent)


@pytest.mark.parametrize("given", ["tracking.uri", "MLFLOW_TRACKING_URI"])
def test_the_store_that_is_named_is_used(
    folder: Path, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    uri, arguments = f"sqlite:///{folder / 'mlflow.db'}", [*XOR, "epochs=1"]
    if given == "tracking.uri":
        arguments.append(f"tracking.uri={uri}")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the key wins
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert run_in_process(tmp_path, *arguments).code == 0
    assert [run.info.status for run in runs(folder, only_sweep(tmp_path))] == ["FINISHED"]
    assert not (tmp_path / "mlflow.db").exists()


def test_a_failed_trial_is_a_failed_run(folder: Path, sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "tracked_losses.py").write_text(LOSS)
    arguments = [*XOR, "epochs=100", "loss=custom", "loss.target=tracked_losses.Raises"]
    done = run_in_process(tmp_path, *arguments, f"tracking.uri=sqlite:///{folder / 'mlflow.db'}")
    assert done.code == 1
    [run] = runs(folder, only_sweep(tmp_path))
    assert run.info.status == "FAILED"
    assert run.data.tags["verdict"] == "failed"
    assert "not today" in run.data.tags["why"]


def test_interrupted_twice_no_run_is_left_running(folder: Path, sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "slow_losses.py").write_text(LOSS)
    loss = ["loss=custom", "loss.target=slow_losses.Leisurely"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ablate", "-m", *XOR[:2], *loss, "epochs=10000000", "seed=0,1", "workers=2"],
        cwd=tmp_path,
        env=environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'mlflow.db'}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while len([1 for path in tmp_path.glob("runs/*/*/mlflow.json")]) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert [run.info.status for run in runs(folder, only_sweep(tmp_path))] == ["KILLED", "KILLED"]
    assert [row["status"] for row in rows(only_sweep(tmp_path))] == ["interrupted", "interrupted"]


def test_an_old_mlruns_is_pointed_out_in_one_line(folder: Path, sweep: Path) -> None:
    (folder / "mlruns" / "0").mkdir(parents=True)
    (folder / "mlruns" / "0" / "meta.yaml").write_text("name: Default\n")
    before = set((folder / "runs").iterdir())
    try:
        done = run_in_process(folder, *XOR, "epochs=1")
    finally:
        shutil.rmtree(folder / "mlruns")
    [line] = done.err.splitlines()
    assert "mlruns" in line
    assert f"mlflow ui --backend-store-uri sqlite:///{folder / 'mlflow.db'}" in line
    assert done.code == 0
    [new] = set((folder / "runs").iterdir()) - before
    assert [run.info.status for run in runs(folder, new)] == ["FINISHED"]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://here"])
def test_without_mlflow_the_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = run_in_process(tmp_path, "-m", *XOR, "epochs=2", "seed=0,1", f"tracking.uri={uri}")
    assert done.code == 0
    [line] = [line for line in done.err.splitlines() if line.startswith("ablate: ")]
    assert uri in line
    assert "the sweep goes on" in line
    assert [(row["status"], row["run_id"]) for row in rows(only_sweep(tmp_path))] == [("finished", "")] * 2
    assert not (tmp_path / "mlflow.db").exists()


def test_two_first_sweeps_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablate", "-m", *XOR, "epochs=1", "seed=0,1"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True) for _ in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    sweeps = [path for path in (tmp_path / "runs").iterdir() if path.name[:2] == "20"]
    assert len(sweeps) == 2
    for sweep in sweeps:
        found = runs(tmp_path, sweep)
        assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
        assert [run.info.run_id for run in found] == [row["run_id"] for row in rows(sweep)]
        assert all(run.data.metrics["test/accuracy"] >= 0 for run in found)


def test_tracking_none_does_not_load_mlflow(tmp_path: Path) -> None:
    program = (
        "import sys\nsys.argv = ['ablate', *sys.argv[1:]]\nfrom ablate.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    print(ended.code, 'mlflow' in sys.modules)\n"
    )
    arguments = [sys.executable, "-c", program, *XOR, "epochs=1", "tracking=none"]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
