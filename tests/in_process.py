"""Trials built from `conf/` and trained in this process, without Hydra, folders or MLflow."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from threadpoolctl import threadpool_limits

from ablate.backends import cuda
from ablate.backends.engine import Engine, Lane
from ablate.backends.numpy import NumpyEngine
from ablate.config import schema as config
from ablate.config.schema import Settings
from ablate.problem.data import loading as data
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture
from ablate.training import loop as train
from ablate.training.loop import Summary

Array = np.ndarray[Any, np.dtype[Any]]


@cache
def _yaml(path: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(config.conf_dir() / f"{path}.yaml"))


@cache
def _value(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]


def resolved(*overrides: str) -> dict[str, Any]:
    """The resolved configuration of `key=value` overrides as on the command line; groups by their choice."""
    given = dict(override.split("=", 1) for override in overrides)
    chosen = dict(_choices(tuple(override for override in overrides if override.split("=")[0] in config.GROUPS)))
    plain = _yaml("config")
    whole: dict[str, Any] = {key: plain[key] for key in plain if key not in ("defaults", "hydra", "cells")}
    whole |= {group: deepcopy(_yaml(f"{group}/{name}")) for group, name in chosen.items()}
    for key, text in given.items():
        if key not in config.GROUPS:
            *groups, name = key.split(".")
            place = whole
            for group in groups:
                place = place[group]
            place[name] = deepcopy(_value(text))
    result = OmegaConf.to_container(OmegaConf.create(whole), resolve=True)
    assert isinstance(result, dict)
    return result


@cache
def _choices(overrides: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    entries = [entry for entry in _yaml("config")["defaults"] if isinstance(entry, dict)]
    chosen = {group: name for entry in entries for group, name in entry.items() if group in config.GROUPS}
    return tuple((chosen | dict(override.split("=", 1) for override in overrides)).items())


def settings(*overrides: str) -> Settings:
    """A trial's checked settings."""
    return config.parse(OmegaConf.create(resolved(*overrides)))


def load(trial: Settings) -> Dataset:
    return data.load(**trial.data.model_dump(), dtype=np.dtype(trial.dtype))


def noise(shape: tuple[int, ...], classes: int, rows: int = 7, seed: int = 0, test_rows: int = 5) -> Dataset:
    """Random samples with random labels, float64."""
    rng = np.random.default_rng(seed)
    x, x_test = rng.normal(size=(rows, *shape)), rng.normal(size=(test_rows, *shape))
    y, y_test = rng.integers(0, classes, rows), rng.integers(0, classes, test_rows)
    return Dataset("noise", "noise", x, y, x_test, y_test, classes)


@dataclass
class Trained:
    """What became of one trial: its initial and final weights, its summary, and every record of its metrics."""

    initial: Mapping[str, Array] = field(default_factory=dict)
    final: Mapping[str, Array] = field(default_factory=dict)
    summary: Summary | None = None
    records: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)


class _Listener:
    def __init__(self, trained: Sequence[Trained]) -> None:
        self.trained = trained

    def begin(self, engine: Engine) -> None:
        for lane, trained in enumerate(self.trained):
            trained.initial = engine.weights(lane)

    def metrics(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        for lane in lanes:
            record = {name: float(column[lane]) for name, column in values.items()}
            self.trained[lane].records.append((step, epoch, record))

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        self.trained[lane].summary, self.trained[lane].final = summary, engine.weights(lane)


def train_together(trials: Sequence[Settings], dataset: Dataset | None = None) -> list[Trained]:
    """Train trials as the lanes of one cohort, in the order given."""
    dataset = dataset or load(trials[0])
    with threadpool_limits(1, user_api="blas"):
        network = train.architecture(trials[0], dataset)
        lanes = [train.lane(trial, network) for trial in trials]
        engine = engine_for(trials[0], network, dataset, lanes)
        trained = [Trained() for _ in trials]
        train.train(trials, dataset, engine, _Listener(trained))
    return trained


def engine_for(trial: Settings, network: Architecture, dataset: Dataset, lanes: Sequence[Lane]) -> Engine:
    """The engine of the trial's backend."""
    batch_size = train.batch_size(trial, dataset)
    if trial.backend == "numpy":
        return NumpyEngine(network, dataset, lanes, batch_size)
    return cuda.CudaEngine(network, dataset, lanes, batch_size, cuda.device(trial.device))


def train_alone(trial: Settings, dataset: Dataset | None = None) -> Trained:
    return train_together([trial], dataset)[0]


def assert_same(one: Trained, other: Trained) -> None:
    """Bit for bit the same weights, and the same summary and metrics."""
    assert one.final.keys() == other.final.keys()
    for name in one.final:
        np.testing.assert_array_equal(one.final[name], other.final[name], err_msg=name, strict=True)
    # As text: NaN is not equal to itself, and repr tells every bit of any other float.
    assert repr(one.summary) == repr(other.summary)
    assert repr(one.records) == repr(other.records)
