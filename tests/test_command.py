"""The command from its arguments to its files: what is printed, created and returned."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from conftest import ROOT, Done, environment, run_as_process, run_in_process

import ablate as ablate_package
from ablate.errors import ConfigError

TINY = ["model=softmax_regression", "data.train_limit=64", "tracking=none", "workers=1"]
SMALL = [*TINY, "data.test_limit=20", "epochs=2"]


def only_sweep(folder: Path) -> Path:
    [sweep] = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    return sweep


def rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metrics(trial: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trial / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


# What it says without training


KEYS = """
    loss loss.from_logits loss.reduction loss.eps_log loss.eps_sum loss.gamma loss.smoothing loss.target loss.args
    model model.output model.logits model.hidden model.activation model.preactivation_divisor
    update_sign residual lr output_lr optimizer optimizer.momentum backend device
    data data.dir data.path data.train_limit data.test_limit data.normalize init init.scale init.bias
    epochs batch_size shuffle seed dtype stop stop.patience stop.accuracy stop.times
    workers log_every dry_run tracking tracking.uri tracking.experiment
"""


@pytest.fixture(scope="module")
def help_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = run_in_process(tmp_path_factory.mktemp("help"), "--help")
    assert done.code == 0
    return done.out


@pytest.mark.parametrize("key", KEYS.split())
def test_help_has_a_sentence_for_every_key(help_text: str, key: str) -> None:
    lines = help_text.splitlines()
    [place] = [number for number, line in enumerate(lines) if line.split()[:1] == [key]]
    assert len(lines[place].split()) > 1  # what is allowed
    assert len(lines[place + 1].split()) > 1  # what it means


def test_help_names_the_default_first(help_text: str) -> None:
    said = {line.split()[0]: line.split()[1] for line in help_text.splitlines() if len(line.split()) > 1}
    for group, default in (("loss", "ce"), ("model", "lenet5"), ("optimizer", "sgd"), ("data", "digits")):
        assert said[group].split("|")[0] == default
    assert (said["lr"], said["epochs"], said["batch_size"], said["shuffle"]) == ("0.1", "10", "null", "true")


def test_cfg_shows_the_resolved_configuration(ablate: Callable[..., Done], tmp_path: Path) -> None:
    done = ablate("--cfg", "job", "loss=focal", "lr=0.5")
    shown = yaml.safe_load(done.out)
    assert done.code == 0
    assert (shown["loss"]["name"], shown["loss"]["gamma"], shown["lr"], shown["epochs"]) == ("focal", 2.0, 0.5, 10)
    assert not list(tmp_path.iterdir())


def test_dry_run_prints_the_plan_and_starts_nothing(ablate: Callable[..., Done], tmp_path: Path) -> None:
    done = ablate("-m", "dry_run=true", "loss=mse,ce", "seed=range(0,2)", "model=mlp,softmax_regression")
    assert (done.code, done.err) == (0, "")
    assert "8 trials, factors: loss, model" in done.out
    assert "loss: mse, ce" in done.out
    assert done.out.count("cohort ") == 2
    assert "trial 7: loss=ce model=softmax_regression seed=1" in done.out
    assert not list(tmp_path.iterdir())


# A single run


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path]:
    folder = tmp_path_factory.mktemp("single")
    done = run_in_process(folder, *SMALL, "log_every=3", "batch_size=20")
    return done, only_sweep(folder)


def test_single_run_writes_its_files(single: tuple[Done, Path]) -> None:
    done, sweep = single
    assert done.code == 0
    named = {path.name for path in sweep.iterdir() if not path.name.startswith(".")}
    assert named >= {"0", "results.csv", "sweep.yaml", "ablate.log"}
    there = {str(path.relative_to(sweep / "0")) for path in (sweep / "0").rglob("*") if path.is_file()}
    expected = {
        "metrics.jsonl",
        "init.npz",
        "final.npz",
        "predictions.npz",
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
    }
    assert there >= expected
    assert f"results  runs/{sweep.name}/results.csv" in done.out
    assert not list(sweep.parent.parent.glob("mlflow.db*"))


def test_the_configuration_is_kept(single: tuple[Done, Path]) -> None:
    hydra = single[1] / "0" / ".hydra"
    config = yaml.safe_load((hydra / "config.yaml").read_text(encoding="utf-8"))
    assert (config["lr"], config["loss"]["name"], config["batch_size"]) == (0.1, "ce", 20)
    assert yaml.safe_load((hydra / "overrides.yaml").read_text(encoding="utf-8")) == [
        *SMALL,
        "log_every=3",
        "batch_size=20",
    ]


def test_metrics_of_every_epoch_and_by_log_every(single: tuple[Done, Path]) -> None:
    records = metrics(single[1] / "0")
    epochs = [record for record in records if "test/loss" in record]
    steps = [record for record in records if "step/loss" in record]
    # 64 rows in batches of 20 are 4 updates an epoch.
    assert [(record["epoch"], record["step"]) for record in epochs] == [(0, 0), (1, 4), (2, 8)]
    assert [(record["epoch"], record["step"]) for record in steps] == [(1, 0), (1, 3), (2, 6)]
    assert "train/loss" not in epochs[0]
    for record in epochs[1:]:
        assert {"train/loss", "train/accuracy", "test/loss", "test/accuracy", "test/confidence"} <= record.keys()
        assert 0 < record["test/confidence"] <= 1
    for record in steps:
        assert 0 < record["grad/output_norm"] <= record["grad/norm"]


def test_weights_and_predictions(single: tuple[Done, Path]) -> None:
    trial = single[1] / "0"
    init, final = np.load(trial / "init.npz"), np.load(trial / "final.npz")
    shapes = {"dense1.weight": (64, 10), "dense1.bias": (10,)}
    assert {name: init[name].shape for name in init} == shapes
    assert {name: final[name].shape for name in final} == shapes
    assert not np.array_equal(init["dense1.weight"], final["dense1.weight"])
    outputs = np.load(trial / "predictions.npz")["outputs"]
    assert sorted(outputs.shape) == [10, 20]
    np.testing.assert_allclose(outputs.sum(axis=outputs.shape.index(10)), 1, rtol=1e-5)


def test_names_of_lenet5_and_no_predictions_of_a_large_test_set(ablate: Callable[..., Done], tmp_path: Path) -> None:
    assert ablate("data.train_limit=32", "data.test_limit=101", "epochs=1", "tracking=none").code == 0
    trial = only_sweep(tmp_path) / "0"
    weights = np.load(trial / "final.npz")
    assert {name: weights[name].shape for name in weights} == {
        "conv1.weight": (6, 1, 5, 5),
        "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5),
        "conv2.bias": (16,),
        "conv3.weight": (120, 16, 5, 5),
        "conv3.bias": (120,),
        "dense1.weight": (120, 10),
        "dense1.bias": (10,),
    }
    assert not (trial / "predictions.npz").exists()


# A sweep


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    done = run_in_process(folder, "-m", *SMALL, "loss=mse,ce", "lr=0.1,0.5", "seed=0,1")
    assert (done.code, done.err) == (0, "")
    return only_sweep(folder)


def test_results_have_a_row_a_trial(sweep_folder: Path) -> None:
    found = rows(sweep_folder)
    after = ["seed", "test_accuracy", "test_loss", "train_accuracy", "train_loss", "epochs", "seconds", "run_id", "dir"]
    assert list(found[0]) == ["trial", "status", "verdict", "why", "loss", "lr", *after]
    assert [row["trial"] for row in found] == [str(number) for number in range(8)]
    cells = [(row["loss"], row["lr"], row["seed"]) for row in found]
    assert cells == [(loss, lr, seed) for loss in ("mse", "ce") for lr in ("0.1", "0.5") for seed in ("0", "1")]
    for number, row in enumerate(found):
        assert (row["status"], row["epochs"], row["run_id"]) == ("finished", "2", "")
        assert row["dir"] == f"runs/{sweep_folder.name}/{number}"
        assert float(row["seconds"]) >= 0
        assert row["verdict"]
        assert row["why"]
        last = metrics(sweep_folder / row["trial"])[-1]
        assert float(row["test_accuracy"]) == last["test/accuracy"]
        assert float(row["train_loss"]) == last["train/loss"]


def test_sweep_yaml_says_how_it_was_made(sweep_folder: Path) -> None:
    described = yaml.safe_load((sweep_folder / "sweep.yaml").read_text(encoding="utf-8"))
    assert described["command"].startswith("ablate -m model=softmax_regression")
    assert {"python", "numpy", "hydra-core", "mlflow"} <= described["versions"].keys()
    assert "git_commit" in described
    assert [trial["trial"] for trial in described["trials"]] == list(range(8))
    assert (
        described["trials"][5]["overrides"] | {"lr": "0.1", "loss": "ce", "seed": "1"}
        == described["trials"][5]["overrides"]
    )
    assert len({trial["config"] for trial in described["trials"]}) == 8


def test_the_plain_load(sweep_folder: Path, sweep_of_one: Path) -> None:
    table = ablate_package.load(sweep_folder)
    assert list(table["trial"]) == list(range(8))
    assert set(table["sweep"]) == {sweep_folder.name}
    assert table.groupby("loss")["test_accuracy"].count().to_dict() == {"ce": 4, "mse": 4}
    both = ablate_package.load(sweep_folder, str(sweep_of_one))
    assert len(both) == 9
    assert set(both["sweep"]) == {sweep_folder.name, sweep_of_one.name}


def test_load_of_curves(sweep_folder: Path, sweep_of_one: Path) -> None:
    curves = ablate_package.load(sweep_folder, sweep_of_one, curves=True)
    assert {"sweep", "trial", "loss", "lr", "seed", "step", "epoch", "metric", "value"} <= set(curves)
    one = curves[(curves["sweep"] == sweep_folder.name) & (curves["trial"] == 3) & (curves["metric"] == "test/loss")]
    assert list(one["epoch"]) == [0, 1, 2]
    written = [record["test/loss"] for record in metrics(sweep_folder / "3") if "test/loss" in record]
    assert list(one["value"]) == written
    assert set(one["loss"]) == {"mse"}


@pytest.fixture(scope="module")
def sweep_of_one(single: tuple[Done, Path]) -> Path:
    return single[1]


def test_load_of_no_sweep_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"results\.csv"):
        ablate_package.load(tmp_path)
    with pytest.raises(ConfigError, match="at least one"):
        ablate_package.load()


def test_what_is_not_finite_is_null(ablate: Callable[..., Done], tmp_path: Path) -> None:
    assert ablate(*SMALL, "loss.from_logits=false", "lr=1e30", "optimizer=momentum").code == 0
    sweep = only_sweep(tmp_path)
    text = (sweep / "0" / "metrics.jsonl").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert None in [record.get("step/loss", 0) for record in metrics(sweep / "0")]
    [row] = rows(sweep)
    assert (row["status"], row["verdict"], row["train_loss"]) == ("finished", "diverged", "")
    curves = ablate_package.load(sweep, curves=True)
    assert curves[curves["metric"] == "step/loss"]["value"].isna().any()


@pytest.mark.parametrize(
    ("stop", "epochs"),
    [
        (["stop=target", "stop.accuracy=0.01"], 1),
        (["stop=target", "stop.accuracy=0.01", "stop.times=2"], 2),
        (["stop=target", "stop.accuracy=1"], 4),
        # Going uphill, no test loss is lower than that of epoch 0.
        (["stop=patience", "stop.patience=2", "update_sign=plus", "lr=0.01"], 2),
        (["stop=patience", "stop.patience=2", "lr=0.01"], 4),
    ],
)
def test_early_stop(ablate: Callable[..., Done], tmp_path: Path, stop: list[str], epochs: int) -> None:
    assert ablate(*SMALL, "epochs=4", *stop).code == 0
    [row] = rows(only_sweep(tmp_path))
    assert row["epochs"] == str(epochs)
    assert metrics(only_sweep(tmp_path) / "0")[-1]["epoch"] == epochs


@pytest.mark.parametrize("workers", [2, 7])
def test_number_of_workers_changes_no_result(
    ablate: Callable[..., Done], tmp_path: Path, sweep_folder: Path, workers: int
) -> None:
    assert ablate("-m", *SMALL, f"workers={workers}", "loss=mse,ce", "lr=0.5").code == 0
    here, there = only_sweep(tmp_path), sweep_folder
    for trial, same in ((0, 2), (1, 6)):
        mine, other = np.load(here / str(trial) / "final.npz"), np.load(there / str(same) / "final.npz")
        np.testing.assert_array_equal(mine["dense1.weight"], other["dense1.weight"])


# One's own loss, model and data


def test_a_loss_that_raises_fails_its_own_trial(ablate: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(LOSSES)
    done = ablate("-m", *SMALL, "loss=custom", "loss.target=my_losses.Raises,my_losses.Squared", "lr=0.1,0.2")
    assert done.code == 1
    found = rows(only_sweep(tmp_path))
    assert [row["status"] for row in found] == ["failed", "failed", "finished", "finished"]
    for row in found[:2]:
        assert row["verdict"] == "failed"
        assert "ValueError: no such thing, said on two lines" in row["why"]
    assert all(np.load(only_sweep(tmp_path) / trial / "final.npz") for trial in ("2", "3"))
    assert "failed: " in done.out
    assert "Traceback" not in done.out + done.err


LOSSES = '''
import multiprocessing
import os
import numpy as np

def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

class Squared:
    output = "softmax"
    def __init__(self, scale=1.0):
        self.scale = scale
    def value(self, z, y):
        return self.scale * 0.5 * ((softmax(z) - y) ** 2).sum(axis=1)
    def gradient(self, z, y):
        p = softmax(z)
        d = (p - y) * p
        return self.scale * (d - p * d.sum(axis=1, keepdims=True))

class Raises(Squared):
    def gradient(self, z, y):
        if len(z) > 4:  # not in the checks of the class before the sweep
            raise ValueError("no such thing,\\nsaid on two lines")
        return super().gradient(z, y)

class Dies(Squared):
    """Ends its process while it trains, where that is a worker's."""
    def gradient(self, z, y):
        if multiprocessing.current_process().name.startswith("Loky"):
            os._exit(3)
        return super().gradient(z, y)
'''


def test_a_loss_with_arguments(ablate: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "args_losses.py").write_text(LOSSES)
    done = ablate(
        "-m", *SMALL, "dtype=float64", "loss=custom", "loss.target=args_losses.Squared", "+loss.args.scale=1,2"
    )
    assert done.code == 0
    reference = run_in_process(
        tmp_path, "-m", *SMALL, "dtype=float64", "loss=mse", "lr=0.1,0.2", "hydra.sweep.dir=runs/ref"
    )
    assert reference.code == 0
    [own] = [path for path in (tmp_path / "runs").iterdir() if path.name != "ref"]
    assert [row["loss.args.scale"] for row in rows(own)] == ["1", "2"]
    for trial in ("0", "1"):
        mine, built_in = np.load(own / trial / "final.npz"), np.load(tmp_path / "runs" / "ref" / trial / "final.npz")
        np.testing.assert_allclose(mine["dense1.weight"], built_in["dense1.weight"], rtol=1e-9)


def test_own_model_and_own_data(ablate: Callable[..., Done], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6, 5))
    y = (x[:, 0, 0] > 0).astype(int)
    np.savez(tmp_path / "mine.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    own = {
        "model/little.yaml": "layers: [{conv: 2, kernel: 3}, relu, {pool: 2}, {dense: 7}, tanh, {dense: classes}]\n",
        "data/mine.yaml": "name: npz\npath: mine.npz\nnormalize: unit\n",
    }
    for name, text in own.items():
        path = tmp_path / "my_conf" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    done = ablate("--config-dir=my_conf", "model=little", "data=mine", "epochs=2", "tracking=none")
    assert (done.code, done.err) == (0, "")
    trial = only_sweep(tmp_path) / "0"
    weights = np.load(trial / "final.npz")
    assert {name: weights[name].shape for name in weights} == {
        "conv1.weight": (2, 1, 3, 3),
        "conv1.bias": (2,),
        "dense1.weight": (2 * 2 * 1, 7),
        "dense1.bias": (7,),
        "dense2.weight": (7, 2),
        "dense2.bias": (2,),
    }
    assert sorted(np.load(trial / "predictions.npz")["outputs"].shape) == [2, 20]


def test_an_override_that_refers_to_another_key(ablate: Callable[..., Done], tmp_path: Path) -> None:
    assert ablate(*SMALL, "output_lr=${lr}").code == 0
    config = yaml.safe_load((only_sweep(tmp_path) / "0" / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
    assert config["output_lr"] == 0.1


# As a process


def test_the_script_is_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"ablate": "ablate.__main__:main"}
    script = shutil.which("ablate", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the project is not installed in this environment")
    done = subprocess.run([script, "--cfg", "job"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "update_sign: minus" in done.stdout


def test_hydras_joblib_launcher_gathers_its_rows(tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(LOSSES)
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    targets = "loss.target=my_losses.Raises,my_losses.Squared"
    done = run_as_process(tmp_path, "-m", *SMALL, *launcher, "loss=custom", targets)
    assert done.code == 1
    assert "Traceback" not in done.err
    found = rows(only_sweep(tmp_path))
    assert [(row["status"], row["loss.target"]) for row in found] == [
        ("failed", "my_losses.Raises"),
        ("finished", "my_losses.Squared"),
    ]


def test_a_worker_that_dies_fails_its_own_trials_only(tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(LOSSES)
    targets = "loss.target=my_losses.Squared,my_losses.Dies"
    done = run_as_process(tmp_path, "-m", *SMALL, "workers=2", "loss=custom", targets, "seed=0,1")
    assert done.code == 1
    found = rows(only_sweep(tmp_path))
    assert [row["status"] for row in found] == ["finished", "finished", "failed", "failed"]
    assert all("process died" in row["why"] for row in found[2:])
    assert "Traceback" not in done.err


# Interrupted


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command as the leader of its own process group, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "ablate", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def living(group: int) -> Iterator[str]:
    """The commands of the processes of a group that are not zombies."""
    for process in psutil.process_iter(["status", "cmdline"]):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == group:
                yield " ".join(process.info["cmdline"] or [])


def assert_all_end(group: int, seconds: float = 5) -> None:
    """No process of a group is left; its helpers notice a moment later that the first has ended."""
    end = time.monotonic() + seconds
    while list(living(group)) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(living(group)) == []


FOREVER = ["-m", *SMALL[1:], "epochs=1000000"]


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_interrupted_sweep_ends_in_order(tmp_path: Path, number: signal.Signals, to_all: bool) -> None:
    """One trial is trained by a process, the other is shared by two."""
    process = start(tmp_path, *FOREVER, "workers=4", "model=softmax_regression,lenet5")

    def last_records() -> list[dict[str, Any]]:
        texts = [path.read_text(encoding="utf-8") for path in tmp_path.glob("runs/*/*/metrics.jsonl")]
        return [json.loads(text.splitlines()[-1]) for text in texts if text.endswith("\n")]

    wait_for(lambda: [record["epoch"] > 0 for record in last_records()] == [True, True], process)
    assert len([command for command in living(process.pid) if "loky" in command and "tracker" not in command]) == 3
    assert all("test/loss" in record for record in last_records()), "only whole epochs are written"
    (os.killpg if to_all else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "interrupted" in out
    found = rows(only_sweep(tmp_path))
    assert [row["model"] for row in found] == ["softmax_regression", "lenet5"]
    for row in found:
        assert row["status"] == row["verdict"] == "interrupted"
        assert row["why"] == "interrupted before its end"
        assert 0 <= float(row["test_accuracy"]) <= 1
        assert int(row["epochs"]) > 0
    assert_all_end(process.pid)


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.5), (signal.SIGTERM, 1.0)])
def test_interrupted_while_it_starts(tmp_path: Path, number: signal.Signals, seconds: float) -> None:
    process = start(tmp_path, *FOREVER, "workers=2", "model=softmax_regression", "lr=0.1,0.2")
    time.sleep(seconds)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    # A signal amid Python's own work on an import may be handed on as itself, which a shell calls 130 too.
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err
    assert "interrupted" in out + err
    assert_all_end(process.pid)
