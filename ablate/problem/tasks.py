"""What a network is to learn: classes, numbers, or several labels that are each there or not.

A task is declared once. Data sets ask it to check their targets, losses name it where they have formulas for it, the
engines ask it for a batch's targets and for what to count, and the records, the tables and the report how to call the
score by which trials are compared.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ablate.errors import ConfigError
from ablate.problem.outputs import Array
from ablate.problem.registry import Registry
from ablate.problem.scoring import ClassScorer, LabelScorer, NumberScorer, Scorer, is_constant


class Task(ABC):
    """A kind of targets, and all that depends on it.

    `takes` says what a file must hold. `score` is the metric by which trials are compared (`test/` and `train/` precede
    it); `columns` are metrics that the results have for this task only, `metrics` all those of every epoch. `heading`
    and `called` name the score above a column and in a sentence, `part` and `parts` what a sample's outputs stand for.
    `usual_loss` is the loss by which it is learned where nothing speaks for another.
    """

    name: ClassVar[str]
    also_called: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[str]
    score: ClassVar[Literal["accuracy", "r2"]] = "accuracy"
    heading: ClassVar[str] = "test acc."
    called: ClassVar[str] = "accuracy"
    columns: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[str, ...]] = ()
    usual_loss: ClassVar[str] = "ce"
    part: ClassVar[str] = "class"
    parts: ClassVar[str] = "classes"
    # Whether a loss is given zeros and ones.
    has_labels: ClassVar[bool] = False
    # Whether targets are classes, so that a sample has one label out of several, and predictions can be counted.
    has_classes: ClassVar[bool] = False

    def __repr__(self) -> str:
        return self.name

    def wrong(self, y: Array) -> NDArray[np.bool_]:
        """Which of a file's numbers `(N, C)` float64 are no targets of this task; not asked where there are classes."""
        return ~np.isfinite(y)

    def refusal(self, y_train: Array, y_test: Array) -> str | None:
        """Why one cannot learn from these targets, or score on them; None if one can."""
        return None

    def unscored(self, y_test: Array) -> Sequence[str]:
        """Sentences on what the score on these targets leaves out."""
        return ()

    @abstractmethod
    def scorer(self, y: Array, outputs: int, scale: Array) -> Scorer:
        """What scores outputs on samples with targets y; `scale` `(C,)` are the units in which targets are given."""

    @abstractmethod
    def baseline(self, y_train: Array, y_test: Array) -> float:
        """The score on the test set of always giving the best constant answer."""

    @property
    def result_columns(self) -> tuple[str, ...]:
        """`columns` as the results name them, after all other columns."""
        return tuple(name.replace("/", "_") for name in self.columns)

    def units(self, asked: int | None, output: str, outputs: int) -> int:
        """The number of logits for `model.units=asked`. Raises ConfigError if it does not fit."""
        if asked not in (None, outputs):
            raise ConfigError(f"model.units={asked}: the data has {outputs} targets a sample, so {outputs} (or null)")
        return outputs

    def truth(self, y: Array, indices: Array) -> Array:
        """The targets of rows `(K, n)`: `(K, n)` labels or `(K, C, n)` numbers."""
        return np.ascontiguousarray(y[indices].swapaxes(-1, -2))

    def targets(self, truth: Array, units: int, dtype: np.dtype[Any]) -> Array:
        """What a loss is given as y, `(K, units, n)`."""
        return truth

    @abstractmethod
    def made_up(self, rng: np.random.Generator, units: int, samples: int) -> Array:
        """Targets `(1, units, samples)` to try a loss on, float64."""

    def spread_out(self, y: Array) -> NDArray[np.intp]:
        """Row numbers, those first that show as many kinds of targets as possible."""
        return np.arange(len(y))

    def written(self, score: float | None) -> str:
        """A score as a user reads it."""
        return "–" if score is None or math.isnan(score) else f"{score:.1%}"


TASKS: Registry[Task] = Registry("data.task")


def declare(task: type[Task]) -> type[Task]:
    """Class decorator: register a task under its name."""
    TASKS.add(task.name, task())
    return task


@declare
class Classification(Task):
    """One class out of several: y `(N,)` int64 in 0..C-1; a loss is given it one-hot."""

    name: ClassVar[str] = "classification"
    also_called: ClassVar[tuple[str, ...]] = ("multiclass", "classifier", "classify")
    takes: ClassVar[str] = "one class a sample, (N,)"
    has_labels: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("train/accuracy", "test/accuracy", "test/confidence", "watch/largest_class")

    def scorer(self, y: Array, outputs: int, scale: Array) -> ClassScorer:
        return ClassScorer(y, outputs)

    def baseline(self, y_train: Array, y_test: Array) -> float:
        return float(np.bincount(y_test).max() / len(y_test))

    def units(self, asked: int | None, output: str, outputs: int) -> int:
        units = outputs if asked is None else asked
        if units == 1 and outputs != 2:
            raise ConfigError(
                f"model.units=1: one unit tells two classes apart, and the data has {outputs}; model.units=null has one"
                " for each"
            )
        if units == 1 and output != "sigmoid":
            raise ConfigError(
                f"model.units=1: one unit needs a sigmoid output, not {output}; model.output=sigmoid with loss=bce or"
                " loss=mse, or model.units=null for one unit a class"
            )
        if units not in (1, outputs):
            raise ConfigError(
                f"model.units={units}: the data has {outputs} classes, so {outputs} units (or null) are needed"
            )
        return units

    def truth(self, y: Array, indices: Array) -> Array:
        return y[indices]

    def targets(self, truth: Array, units: int, dtype: np.dtype[Any]) -> Array:
        """One-hot targets; with a single unit, the label itself."""
        if units == 1:
            return truth[:, None, :].astype(dtype)
        return (truth[:, None, :] == np.arange(units)[:, None]).astype(dtype)

    def made_up(self, rng: np.random.Generator, units: int, samples: int) -> Array:
        labels = np.arange(samples) % max(units, 2)
        return (labels == (np.arange(units)[:, None] if units > 1 else 1)).astype(float).reshape(1, units, samples)

    def spread_out(self, y: Array) -> NDArray[np.intp]:
        firsts = np.unique(y, return_index=True)[1]
        return np.concatenate([np.sort(firsts), np.setdiff1d(np.arange(len(y)), firsts)])


@declare
class Regression(Task):
    """Numbers: y `(N, C)` of the data set's dtype, from `(N,)` or `(N, C)`; a loss is given them as they are."""

    name: ClassVar[str] = "regression"
    also_called: ClassVar[tuple[str, ...]] = ("regressor", "regress")
    takes: ClassVar[str] = "finite numbers, (N,) or (N, T)"
    score: ClassVar[Literal["accuracy", "r2"]] = "r2"
    heading: ClassVar[str] = "test R²"
    called: ClassVar[str] = "R²"
    usual_loss: ClassVar[str] = "mse"
    part: ClassVar[str] = "target"
    parts: ClassVar[str] = "targets"
    columns: ClassVar[tuple[str, ...]] = ("test/r2", "test/rmse", "train/r2", "train/rmse")
    metrics: ClassVar[tuple[str, ...]] = (*columns, "watch/spread")

    def refusal(self, y_train: Array, y_test: Array) -> str | None:
        if (constant := is_constant(y_train)).any():
            column = int(constant.argmax())
            found = f"target {column} is {y_train[0, column]:g} in all rows to train on ({len(y_train)})"
            return f"{found}; give targets that differ"
        if is_constant(y_test).all():
            return (
                f"R² is not defined: all rows to test on ({len(y_test)}) have the same targets; give some that differ"
            )
        return None

    def unscored(self, y_test: Array) -> Sequence[str]:
        constant = is_constant(y_test)
        if not constant.any():
            return ()
        named, verb = ", ".join(map(str, np.flatnonzero(constant))), "is" if constant.sum() == 1 else "are"
        found = f"target {named} {verb} the same in all {len(y_test)} rows to test on and has no R²"
        return (f"{found}: test R² is that of the other {(~constant).sum()}, the RMSE of all",)

    def scorer(self, y: Array, outputs: int, scale: Array) -> NumberScorer:
        return NumberScorer(y, scale)

    def baseline(self, y_train: Array, y_test: Array) -> float:
        return 0.0

    def made_up(self, rng: np.random.Generator, units: int, samples: int) -> Array:
        return rng.standard_normal((1, units, samples))

    def written(self, score: float | None) -> str:
        if score is None or math.isnan(score):
            return "–"
        return f"{score:.3f}" if score > -100 else f"{score:.3g}"


@declare
class Multilabel(Task):
    """Several labels, each there or not: y `(N, C)` of 0 and 1; a loss is given them as they are."""

    name: ClassVar[str] = "multilabel"
    also_called: ClassVar[tuple[str, ...]] = ("multilabel_classification", "multioutput")
    takes: ClassVar[str] = "0 and 1, (N, L)"
    heading: ClassVar[str] = "test acc."
    called: ClassVar[str] = "share of labels right"
    usual_loss: ClassVar[str] = "bce"
    part: ClassVar[str] = "label"
    parts: ClassVar[str] = "labels"
    has_labels: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = (
        "test/exact_match",
        "test/macro_f1",
        "train/exact_match",
    )
    metrics: ClassVar[tuple[str, ...]] = ("train/accuracy", "test/accuracy", *columns, "watch/constant")

    def wrong(self, y: Array) -> NDArray[np.bool_]:
        return (y != 0) & (y != 1)

    def refusal(self, y_train: Array, y_test: Array) -> str | None:
        if y_train.min() < y_train.max():
            return None
        only = f"the rows to train on ({len(y_train)}) have only {y_train.flat[0]:g}"
        return f"{only}; give samples that have a label and samples that lack it"

    def scorer(self, y: Array, outputs: int, scale: Array) -> LabelScorer:
        return LabelScorer(outputs)

    def baseline(self, y_train: Array, y_test: Array) -> float:
        """The share of labels right if each is always answered with its commoner value in the training set."""
        return float(((y_train.mean(axis=0) > 0.5) == (y_test > 0.5)).mean())

    def made_up(self, rng: np.random.Generator, units: int, samples: int) -> Array:
        return (rng.random((1, units, samples)) > 0.5).astype(float)


CLASSIFICATION = TASKS.get("classification")
