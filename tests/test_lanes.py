"""Lane invariance: a trial's numbers are bit for bit the same whoever is trained beside it, and however often."""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from helpers import Trained, assert_same, load, settings, train_alone, train_together
from helpers import trial as composed
from rich.console import Console

from ablate.backends import process_group
from ablate.backends.numpy import engine
from ablate.backends.process_group import Rendezvous
from ablate.config.settings import Settings
from ablate.execution import plan, pool, sweep
from ablate.execution.prepare import prepare
from ablate.records.sweep_folder import SweepFolder
from ablate.trials.prepared import PreparedTrial
from ablate.trials.trial import Trial

LOSSES = [
    ["loss=ce"],
    ["loss=ce", "loss.from_logits=false", "loss.eps_log=1e-10"],
    ["loss=ce", "loss.from_logits=false", "loss.eps_sum=1e-8"],
    ["loss=mse"],
    ["loss=mse", "model.output=sigmoid"],
    ["loss=bce"],
    ["loss=bce", "loss.reduction=sum"],
    ["loss=mae"],
    ["loss=hinge"],
    ["loss=focal", "loss.gamma=2"],
    ["loss=focal", "loss.gamma=0.5"],
    ["loss=focal", "model.output=sigmoid", "loss.alpha=0.25"],
    ["loss=squared_hinge", "loss.margin=0.5"],
    ["loss=label_smoothing"],
    ["loss=reverse_kl"],
    ["loss=custom", "loss.target=custom_losses.CrossEntropy"],
    ["loss=custom", "loss.target=custom_losses.Squared"],
    ["loss=custom", "loss.target=custom_losses.Failing", "+loss.args.after=2"],
    ["loss=custom", "loss.target=custom_losses.Failing", "+loss.args.after=5"],
]
OPTIMIZERS = [
    ["optimizer=sgd"],
    ["optimizer=momentum"],
    ["optimizer=momentum", "optimizer.momentum=0.5"],
    ["optimizer=adam"],
    ["optimizer=adam", "optimizer.beta1=0.5", "optimizer.epsilon=1e-4"],
    ["optimizer=rmsprop"],
    ["optimizer=adagrad"],
    ["optimizer=nesterov", "optimizer.weight_decay=0.1"],
    ["optimizer=adamw", "schedule=cosine"],
    ["optimizer=adadelta", "schedule=warmup"],
    ["schedule=step", "schedule.every=1", "schedule.warmup=0.3"],
    ["optimizer.weight_decay=1e-3", "optimizer.clip_value=0.02"],
    ["optimizer.clip_norm=0.3"],
    ["optimizer.clip_norm=0.1", "optimizer.clip_value=0.1"],
]
STOPS = [[], [], ["stop=patience", "stop.patience=1"], ["stop=target", "stop.accuracy=0.3"]]
INITS = [[], ["init.bias=same"], ["init=uniform01"], ["init=normal", "init.scale=0.2"], ["init=orthogonal"]]
RATES = [0.003, 0.05, 0.1, 0.1, 0.5]
HUGE = {"float32": 3e38, "float64": 1e308}  # not finite after a few steps

# name: (overrides, lanes), each with a batch that does not divide the training set
LANES = 40
COHORTS: dict[str, tuple[list[str], int]] = {
    "lenet5": (["batch_size=60", "data.train_limit=75", "data.test_limit=60", "epochs=2"], 8),
    "mlp": (["model=mlp", "model.hidden=[12,9]", "batch_size=40", "data.train_limit=150", "epochs=3"], LANES),
    "softmax_regression": (["model=softmax_regression", "batch_size=32", "data.train_limit=100", "epochs=3"], LANES),
    "xor": (["data=xor", "model=mlp", "model.hidden=5", "epochs=20"], LANES),
    "xor one by one": (["data=xor", "model=mlp", "model.hidden=5", "batch_size=1", "epochs=5"], 20),
    "one by one": (
        [
            "model=mlp",
            "model.activation=softmax",
            "batch_size=1",
            "data.train_limit=20",
            "data.test_limit=20",
            "epochs=2",
        ],
        12,
    ),
    "lenet5 one by one": (["batch_size=1", "data.train_limit=6", "data.test_limit=5", "epochs=1"], 5),
    "a part and a rest": (["model=mlp", "model.activation=elu", "model.dropout=0.3", "batch_size=1100", "epochs=2"], 6),
}


def _mixture(common: Sequence[str], dtype: str, lanes: int, rng: np.random.Generator) -> list[Settings]:
    """Trials of one cohort that differ in everything in which lanes may differ, drawn at random."""

    def one_of(choices: Sequence[Any]) -> Any:
        return choices[rng.integers(len(choices))]

    return [
        settings(
            *common,
            *one_of(LOSSES),
            *one_of(OPTIMIZERS),
            *one_of(STOPS),
            *one_of(INITS),
            f"dtype={dtype}",
            f"lr={one_of([*RATES, HUGE[dtype], HUGE[dtype]])}",
            f"output_lr={one_of(['null', 'null', 0.02])}",
            f"update_sign={one_of(['minus', 'minus', 'plus'])}",
            f"residual={one_of(['p-y', 'p-y', 'y-p'])}",
            f"shuffle={one_of(['true', 'true', 'false'])}",
            f"seed={rng.integers(4)}",
        )
        for _ in range(lanes)
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", COHORTS)
def test_a_lane_of_a_random_mixture_is_the_trial_alone(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of many lanes the engine makes several groups, and here of these.
    monkeypatch.setattr(engine, "STACKED_DENSE", 16)
    common, lanes = COHORTS[name]
    rng = np.random.default_rng([len(name), len(dtype) * ord(dtype[-1]), 1])
    trials = _mixture(common, dtype, lanes, rng)
    dataset = load(trials[0])
    alone = [train_alone(trial, dataset) for trial in trials]
    together = train_together(trials, dataset)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)
    if lanes >= LANES:
        _assert_varied(alone)
    order = rng.permutation(lanes)[: lanes // 2]
    for lane, other in zip(order, train_together([trials[lane] for lane in order], dataset), strict=True):
        assert_same(alone[lane], other)


def _assert_varied(trained: Sequence[Trained]) -> None:
    """Every way for a lane to end is among them."""
    summaries = [each.summary for each in trained if each.summary]
    assert any(summary.error for summary in summaries)
    assert any(summary.not_finite_step is not None for summary in summaries)
    last = max(summary.epochs for summary in summaries)
    ended = [summary for summary in summaries if not summary.error and summary.not_finite_step is None]
    assert any(summary.epochs == last for summary in ended)


NEIGHBOURS = {
    "not finite": ["lr=3e38", "seed=1"],
    "stops": ["stop=target", "stop.accuracy=0.01", "seed=2"],
    "fails": ["loss=custom", "loss.target=custom_losses.Failing", "+loss.args.after=1"],
    "fails at once": ["loss=custom", "loss.target=custom_losses.Failing", "+loss.args.after=0", "seed=1"],
}


@pytest.mark.parametrize(
    "common",
    [
        ["data.train_limit=60", "data.test_limit=20", "batch_size=25", "epochs=2"],
        ["model=mlp", "data.train_limit=100", "epochs=3"],
        ["model=softmax_regression", "data.train_limit=100", "epochs=3"],
        ["data=xor", "model=mlp", "batch_size=3", "epochs=3"],
    ],
    ids=["lenet5", "mlp", "softmax_regression", "xor"],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_neighbour_that_ends_early_changes_nothing(common: list[str], place: int) -> None:
    trial = settings(*common, "optimizer=momentum", "seed=3")
    neighbours = [settings(*common, "optimizer=momentum", *more) for more in NEIGHBOURS.values()]
    trials = [*neighbours[:place], trial, *neighbours[place:]]
    together = train_together(trials)
    assert_same(train_alone(trial), together.pop(place))
    ends = [each.summary for each in together]
    assert ends[0].not_finite_step is not None
    assert ends[1].epochs < trial.epochs
    assert not ends[1].error
    assert all("no more of this" in end.error for end in ends[2:])


@pytest.mark.parametrize("model", ["lenet5", "mlp"])
@pytest.mark.parametrize("loss", ["ce", "mse", "hinge"])
def test_two_wrong_signs_are_a_right_one(model: str, loss: str) -> None:
    common = [f"model={model}", f"loss={loss}", "data.train_limit=100", "epochs=2"]
    # Weight decay has a sign of its own.
    common += ["optimizer=momentum" if loss == "ce" else "optimizer=adamw", "optimizer.weight_decay=0.1"]
    signs = [("minus", "p-y"), ("plus", "y-p"), ("plus", "p-y"), ("minus", "y-p")]
    right, also_right, wrong, also_wrong = train_together(
        [settings(*common, f"update_sign={sign}", f"residual={residual}") for sign, residual in signs]
    )
    assert_same(right, also_right)
    assert_same(wrong, also_wrong)
    assert not np.array_equal(right.final["dense1.weight"], wrong.final["dense1.weight"])


def test_a_seed_gives_weights_and_order() -> None:
    """Another seed changes both; without shuffling the order is the file's for every seed."""
    common = ["model=softmax_regression", "init=normal", "init.scale=1e-30", "data.train_limit=100", "epochs=1"]

    def final(*more: str) -> Any:
        return train_alone(settings(*common, *more)).final["dense1.weight"]

    np.testing.assert_array_equal(final("seed=1"), final("seed=1"))
    # Weights as small as these start alike, so that only the order differs.
    assert np.abs(final("seed=1") - final("seed=2")).max() > 1e-3
    np.testing.assert_allclose(final("seed=1", "shuffle=false"), final("seed=2", "shuffle=false"), atol=1e-6)
    whole = ["batch_size=100"]
    np.testing.assert_array_equal(final("seed=1", *whole), final("seed=1", "shuffle=false", *whole))


# Whole sweeps, as the launcher runs them, in one process and in two.

SWEEP = [
    ["lr=0.1"],
    ["lr=0.5", "loss=mse", "seed=1"],
    ["update_sign=plus"],
    ["lr=3e38"],
    ["loss=custom", "loss.target=custom_losses.Failing"],
    ["model=mlp", "optimizer=adam"],
    ["model=mlp", "loss=bce", "seed=1"],
    ["model=mlp", "loss=hinge", "stop=target", "stop.accuracy=0.1"],
    ["data=xor", "model=mlp", "loss=mse", "model.output=sigmoid", "data.train_limit=null", "data.test_limit=null"],
]
LIMITED = ["tracking=none", "epochs=2", "data.train_limit=80", "data.test_limit=40"]


def _run(folder: Path, trials: Sequence[Sequence[str]], workers: int) -> None:
    written = [[*LIMITED, *overrides, f"workers={workers}"] for overrides in trials]
    made = [replace(composed(*given), number=number) for number, given in enumerate(written)]
    # The folders of the trials are compared; drawing their pictures would take longer than training them.
    with mock.patch.object(sweep, "_report", return_value=None):
        code = sweep.run(prepare(folder, made), Console(file=io.StringIO()))
    assert code == (sweep.SOME_FAILED if any("Failing" in word for words in trials for word in words) else 0)


def _assert_same_folders(one: Path, other: Path) -> None:
    for name in ("init.npz", "final.npz"):
        with np.load(one / name) as a, np.load(other / name) as b:
            assert a.files == b.files
            for tensor in a.files:
                np.testing.assert_array_equal(a[tensor], b[tensor], err_msg=tensor, strict=True)
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    rows = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    different = {key for key in rows[0] if rows[0][key] != rows[1][key]}
    assert different <= {"seconds", "overrides", "trial"}


def test_one_worker_two_workers_alone_and_again(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("again", 1), ("two", 2)):
        _run(tmp_path / name, SWEEP, workers)
    for number in range(len(SWEEP)):
        for other in ("again", "two"):
            _assert_same_folders(tmp_path / "one" / str(number), tmp_path / other / str(number))
    for number in (1, 4, 6, 8):
        _run(tmp_path / "alone" / str(number), [SWEEP[number]], 1)
        _assert_same_folders(tmp_path / "one" / str(number), tmp_path / "alone" / str(number) / "0")


LONE = {
    "plain": ["batch_size=40", "loss=mse", "lr=0.5"],
    "a short last batch": ["batch_size=33", "optimizer=adam", "lr=0.01", "optimizer.clip_norm=0.1", "schedule=cosine"],
    "one batch is the whole set": ["batch_size=80", "seed=3"],
    "it diverges": ["batch_size=40", "lr=3e38"],
    "it stops": ["batch_size=40", "stop=target", "stop.accuracy=0.01"],
    "a bug": ["batch_size=40", "bug=stale_gradients"],
    "float64 and dropout": [
        *("batch_size=76", "dtype=float64", "model.fit=null"),
        "model.layers=[{conv: 3, kernel: 3}, {dropout: 0.3}, {pool: 2}, relu, {dense: classes}]",
    ],
}


# There are two shares of each of these batches, so a third process has nothing to do.
@pytest.mark.parametrize(("name", "workers"), [*((name, 2) for name in LONE), ("plain", 3)])
def test_processes_that_share_a_trial_change_nothing(
    name: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helped = []
    monkeypatch.setattr(plan, "WORTH_A_PROCESS", 0)
    size = plan._group_size
    monkeypatch.setattr(plan, "_group_size", lambda *given: helped.append(size(*given)) or helped[-1])
    _run(tmp_path / "shared", [LONE[name]], workers)
    _run(tmp_path / "alone", [LONE[name]], 1)
    assert helped == [min(workers, 2), 1]
    _assert_same_folders(tmp_path / "shared" / "0", tmp_path / "alone" / "0")


def test_a_batch_of_many_parts_is_shared_by_as_many_as_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "WORTH_A_PROCESS", 0)
    large = ["batch_size=400", "data.train_limit=900", "data.test_limit=200", "epochs=1"]
    for workers in (1, 3, 4):
        _run(tmp_path / str(workers), [large], workers)
    for workers in (3, 4):
        _assert_same_folders(tmp_path / "1" / "0", tmp_path / str(workers) / "0")


def test_processes_meet_elsewhere_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    monkeypatch.setattr(plan, "WORTH_A_PROCESS", 0)
    for workers in (1, 2):
        _run(tmp_path / str(workers), [LONE["plain"]], workers)
    assert process_group._memory(2000) is None
    _assert_same_folders(tmp_path / "1" / "0", tmp_path / "2" / "0")


def test_a_trial_whose_other_process_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(pool, "help_to_train", _leaves)
    trial = composed(*LIMITED, "workers=2")
    assert sweep.run(prepare(tmp_path, [trial]), Console(file=io.StringIO())) == sweep.SOME_FAILED
    row = json.loads((tmp_path / "0" / "result.json").read_text())
    assert row["verdict"] == "failed"
    assert "a process that trained the same trial ended too early" in row["why"]


def _leaves(
    folder: SweepFolder, trials: Sequence[Trial], prepared: Sequence[PreparedTrial], rendezvous: Rendezvous
) -> None:
    rendezvous.join().close()


def test_a_users_loss_is_called_in_one_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WORTH_A_PROCESS", 0)
    annealed = ["loss=custom", "loss.target=custom_losses.Annealed"]
    for workers in (1, 2):
        _run(tmp_path / str(workers), [annealed], workers)
    _assert_same_folders(tmp_path / "1" / "0", tmp_path / "2" / "0")
