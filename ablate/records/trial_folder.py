"""A trial's folder: the only module that knows which files it contains, and how each is written and read."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NotRequired, TypedDict, cast

import numpy as np
import orjson
from omegaconf import OmegaConf

from ablate.diagnosis.checks import Check
from ablate.diagnosis.evidence import Evidence
from ablate.diagnosis.measure import Entry, TensorCheck
from ablate.problem.data.facts import Facts
from ablate.records.files import broken, read_json, read_yaml, replace_file
from ablate.trials.trial import ABSENT, Trial

Array = np.ndarray[Any, np.dtype[Any]]
Record = dict[str, Any]

_CONFIG, _OVERRIDES = ".hydra/config.yaml", ".hydra/overrides.yaml"
_RESULT, _CHECK, _METRICS, _DELIVERY = "result.json", "check.json", "metrics.jsonl", "mlflow.json"
_EVIDENCE = "evidence.json"
_NOTICES = "notices.json"
_INITIAL, _FINAL, _PREDICTIONS = "init.npz", "final.npz", "predictions.npz"
_WHILE_RUNNING = (_NOTICES, _RESULT, _CHECK, _EVIDENCE, _METRICS, _DELIVERY, _INITIAL, _FINAL, _PREDICTIONS)
# The keys of a configuration on which readers rely, whichever version wrote it; the last stands near the file's end.
_SECTIONS = {"loss", "model", "data", "init", "lr", "epochs", "dtype"}


class Row(TypedDict):
    """How a trial ended.

    `overrides` are the levels of the keys that were given; a number that is not finite, or not known, is None. A trial
    that did not run to its end has no `is_flagged`, which says whether its check found something. `task` and `scores`,
    the figures in its columns of the results, are there where targets are no classes.
    """

    trial: int
    status: str
    verdict: str
    is_flagged: NotRequired[bool]
    why: str
    overrides: dict[str, Any]
    choices: NotRequired[dict[str, str]]
    seed: int
    test_accuracy: float | None
    test_loss: float | None
    train_accuracy: float | None
    train_loss: float | None
    epochs: int
    seconds: float | None
    task: NotRequired[str]
    scores: NotRequired[dict[str, float | None]]


class Delivery(TypedDict):
    """A trial's MLflow run: its id, and whether all of it was sent."""

    run_id: str | None
    sent: bool


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial, `runs/<sweep>/<number>`.

    Readers return None, or something empty, if a file does not exist yet, and raise ConfigError if one is damaged.
    """

    path: Path

    @property
    def number(self) -> int:
        """The trial's number; -1 for a folder with another name."""
        return int(self.path.name) if self.path.name.isdigit() else -1

    @property
    def is_begun(self) -> bool:
        """Whether this is the folder of a trial, written at its sweep's start."""
        return (self.path / _CONFIG).is_file()

    def create(self, trial: Trial) -> None:
        """Create the folder and write the trial's configuration. Raises OSError.

        What an older trial left in it is removed: it would pass for this trial's until it has written its own.
        """
        (self.path / _CONFIG).parent.mkdir(parents=True, exist_ok=True)
        for name in _WHILE_RUNNING:
            (self.path / name).unlink(missing_ok=True)
        given = [f"{key}={value}" for key, value in trial.overrides.items() if value != ABSENT]
        for name, content in ((_CONFIG, dict(trial.config)), (_OVERRIDES, given)):
            replace_file(self.path / name, OmegaConf.to_yaml(OmegaConf.create(content)))

    def read_config(self) -> dict[str, Any]:
        """The trial's resolved configuration, by sections."""
        return read_yaml(self.path / _CONFIG, _SECTIONS)

    def read_result(self) -> Row | None:
        """The trial's row, once it has ended."""
        return cast("Row | None", read_json(self.path / _RESULT, Row.__required_keys__))

    def write_result(self, row: Row) -> None:
        """Write the row, last of all: if it exists, every other file of the trial is complete."""
        replace_file(self.path / _RESULT, json.dumps(row))

    def read_check(self) -> Check | None:
        """What the check before training found; None if there was no check."""
        values = read_json(self.path / _CHECK, {"tensors"})
        if values is None:
            return None
        try:
            tensors = tuple(
                TensorCheck(**{**tensor, "entries": tuple(Entry(**entry) for entry in tensor["entries"])})
                for tensor in values.pop("tensors")
            )
            return Check(tensors=tensors, **values)
        except (KeyError, TypeError):
            raise broken(self.path / _CHECK) from None

    def write_check(self, check: Check) -> None:
        replace_file(self.path / _CHECK, json.dumps(asdict(check)))

    def read_notices(self) -> list[str]:
        """Lines on how the trial's data were taken; none if they were taken as they stand in their files."""
        found = read_json(self.path / _NOTICES, {"notices"})
        return list(found["notices"]) if found else []

    def write_notices(self, notices: Sequence[str]) -> None:
        replace_file(self.path / _NOTICES, json.dumps({"notices": notices}))

    def read_evidence(self) -> Evidence | None:
        """What the data and the start show; None for a trial that trained or did not run to its end."""
        values = read_json(self.path / _EVIDENCE, {"facts", "gains"})
        if values is None:
            return None
        facts, *others = (_with_nan(each) for each in (values.pop("facts"), values))
        try:
            return Evidence(**others[0] | {"facts": Facts(**facts), "alike": tuple(values["alike"])})
        except (KeyError, TypeError):
            raise broken(self.path / _EVIDENCE) from None

    def write_evidence(self, evidence: Evidence) -> None:
        """A number that is not finite becomes null."""
        replace_file(self.path / _EVIDENCE, orjson.dumps(asdict(evidence)))

    def read_delivery(self) -> Delivery:
        """The state of the trial's delivery to MLflow; nothing sent if there is no file."""
        found = read_json(self.path / _DELIVERY, Delivery.__required_keys__)
        return cast("Delivery", found or {"run_id": None, "sent": False})

    def write_delivery(self, run_id: str, sent: bool) -> None:
        replace_file(self.path / _DELIVERY, json.dumps({"run_id": run_id, "sent": sent}))

    def open_metrics(self) -> IO[bytes]:
        """Open a new file for the metrics: each line an object with `step`, `epoch` and metrics by name."""
        return (self.path / _METRICS).open("wb")

    def tail(self) -> "Tail":
        """A reader of the metrics that follows their growth."""
        return Tail(self.path / _METRICS)

    def read_metrics(self) -> list[Record]:
        """Every complete record of metrics so far."""
        return self.tail().read()

    def write_initial_weights(self, weights: Mapping[str, Array]) -> None:
        """Weights by tensor, such as `conv1.weight (6, 1, 5, 5)`."""
        np.savez(self.path / _INITIAL, **weights)  # type: ignore[arg-type]

    def write_final_weights(self, weights: Mapping[str, Array]) -> None:
        np.savez(self.path / _FINAL, **weights)  # type: ignore[arg-type]

    def read_final_weights(self) -> dict[str, Array]:
        """Weights by tensor. Raises FileNotFoundError if the trial did not run to its end."""
        with np.load(self.path / _FINAL) as arrays:
            return dict(arrays)

    def write_predictions(self, outputs: Array) -> None:
        """The outputs on the test set, `(N, C)`."""
        np.savez(self.path / _PREDICTIONS, outputs=outputs)

    def read_predictions(self) -> Array:
        """The outputs on the test set, `(N, C)`. Raises FileNotFoundError if they were too many to keep."""
        with np.load(self.path / _PREDICTIONS) as arrays:
            return np.asarray(arrays["outputs"])


def _with_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


@dataclass
class Tail:
    """Reads a growing file of metrics: each call returns the complete records since the last call."""

    path: Path
    offset: int = 0

    def read(self) -> list[Record]:
        return self.parsed(self.lines())

    def lines(self) -> list[bytes]:
        """The same records, not parsed."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self.offset += end
        return data[:end].splitlines()

    def parsed(self, lines: Sequence[bytes]) -> list[Record]:
        """Lines as records."""
        try:
            return [orjson.loads(line) for line in lines]
        except orjson.JSONDecodeError:
            raise broken(self.path) from None


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended, read from its folder, with what `trials.factors` needs.

    Its levels are those of its row; its configuration is read on first use, unless it is `planned` here.
    """

    row: Row
    folder: TrialFolder
    planned: Mapping[str, Any] | None = None

    @property
    def overrides(self) -> Mapping[str, Any]:
        return self.row["overrides"]

    @property
    def levels(self) -> Mapping[str, Any]:
        return self.row["overrides"]

    @property
    def choices(self) -> Mapping[str, str]:
        return self.row.get("choices", {})

    @cached_property
    def config(self) -> Mapping[str, Any]:
        return self.folder.read_config() if self.planned is None else self.planned

    def thinned(self, holding: str, most: int) -> list[Record]:
        """At most `most` + 1 of the records of metrics whose line contains `holding`; the others are not parsed.

        They are dense at the start, where curves change most (the square of an even spacing), and include the last.
        """
        found = [line for line in self._lines if holding.encode() in line]
        if len(found) > most:
            places = {round((len(found) - 1) * (i / most) ** 2) for i in range(most + 1)}
            found = [found[place] for place in sorted(places)]
        return self.folder.tail().parsed(found)

    @cached_property
    def _lines(self) -> list[bytes]:
        return self.folder.tail().lines()
