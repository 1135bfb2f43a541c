"""What is counted of a network's outputs besides the loss, and the metrics that follow from the counts.

An engine adds up tallies, batch by batch, for each of its lanes, and knows no metric by name. Arrays are `(K, C, n)`:
lanes, outputs, samples; `truth` has `(K or 1, n)` labels or `(K or 1, C, n)` targets. Tallies are sums over samples in
float64, so metrics of a whole set do not depend on how it was cut into batches.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ablate.problem.outputs import Array

# With more classes than this, their recalls are not recorded one by one.
MOST_RECALLS = 20
# From this ratio of the most to the least frequent class on, an accuracy hides how a class fares. With fewer samples a
# class, chance alone makes such ratios.
UNBALANCED, ROWS_A_CLASS = 3, 20


def is_unbalanced(counts: Sequence[int]) -> bool:
    """Whether some classes are far more frequent than others: `counts` are samples by class, 0 for one not there."""
    there = [count for count in counts if count]
    return sum(there) >= ROWS_A_CLASS * len(there) and max(there) >= UNBALANCED * min(there)


def is_below_chance(recall: float, classes: int, rows: int) -> bool:
    """Whether a mean recall by class on `rows` samples is worse than of answers that have nothing to do with them.

    Those have 1/classes, however frequent each class and each answer is; two standard errors are left to chance.
    """
    chance = 1 / classes
    return recall < chance - 2 * math.sqrt(chance * (1 - chance) / rows)


def is_constant(y: Array) -> NDArray[np.bool_]:
    """Which of the targets `(N, C)` are the same in every row. Their variance may not be 0, for rounding."""
    return np.asarray(y.min(axis=0) == y.max(axis=0))


class Scorer(ABC):
    """Scores the outputs on one set of samples, the training set or the test set.

    `kernel` is its struct in `cuda/scoring.cuh` and `facts` `(rows, columns)` float64 what that is given.
    `while_trained` and `when_tested` are the numbers of tallies, of which the last `counted` are counts by class.
    """

    kernel: ClassVar[str]
    facts: Array = np.zeros((1, 1))
    while_trained: int
    when_tested: int
    counted: int = 0

    @abstractmethod
    def trained(self, z: Array, p: Array, truth: Array) -> Array:
        """The tallies of a batch in training, `(while_trained, K)`."""

    @abstractmethod
    def tested(self, z: Array, p: Array, truth: Array) -> Array:
        """The tallies of a batch that is evaluated, `(when_tested, K)`."""

    @abstractmethod
    def of_training(self, tallies: Array, rows: int) -> dict[str, Array]:
        """Metrics `(K,)` by name of the sums `(K, while_trained)` over an epoch."""

    @abstractmethod
    def of_test(self, tallies: Array, rows: int) -> dict[str, Array]:
        """Metrics `(K,)` by name of the sums `(K, when_tested)` over the set."""

    def counts(self, tallies: Array) -> tuple[Array, Array]:
        """By class, `(K, classes)`, the predictions and those that are right; no columns where there are no classes."""
        none = np.zeros((len(tallies), 0), np.intp)
        return none, none


class ClassScorer(Scorer):
    """Accuracy, confidence and, where the classes of the set are unbalanced, recall by class.

    A prediction is the first largest logit; with a single unit, whether p > 1/2.
    """

    kernel: ClassVar[str] = "Classes"
    while_trained = 1

    def __init__(self, y: Array, classes: int) -> None:
        self.classes, self.counted = classes, 2 * classes
        self.when_tested = 2 + self.counted
        self.labels = np.bincount(y, minlength=classes)
        self.is_unbalanced = is_unbalanced(self.labels.tolist())

    def trained(self, z: Array, p: Array, truth: Array) -> Array:
        return np.asarray((_predicted(z) == truth).sum(axis=-1))

    def tested(self, z: Array, p: Array, truth: Array) -> Array:
        tallies, predicted = np.empty((self.when_tested, len(z))), _predicted(z)
        confidence = p.max(axis=-2) if p.shape[-2] > 1 else np.maximum(p, 1 - p)[:, 0]
        right = predicted == truth
        tallies[0] = right.sum(axis=-1)
        tallies[1] = confidence.sum(axis=-1, dtype=np.float64)
        places = predicted + np.arange(len(z))[:, None] * self.classes
        counts = (np.bincount(of, minlength=len(z) * self.classes) for of in (places.ravel(), places[right]))
        tallies[2:] = np.concatenate([count.reshape(len(z), -1).T for count in counts])
        return tallies

    def of_training(self, tallies: Array, rows: int) -> dict[str, Array]:
        return {"train/accuracy": tallies[:, 0] / rows}

    def of_test(self, tallies: Array, rows: int) -> dict[str, Array]:
        values = {
            "test/accuracy": tallies[:, 0] / rows,
            "test/confidence": tallies[:, 1] / rows,
            "watch/largest_class": tallies[:, 2 : 2 + self.classes].max(axis=1) / rows,
        }
        return values | self._recalls(tallies) if self.is_unbalanced else values

    def _recalls(self, tallies: Array) -> dict[str, Array]:
        """The lowest recall of a class; that of every class too, unless they are too many to look at."""
        there = np.flatnonzero(self.labels)
        recalls = tallies[:, 2 + self.classes :][:, there] / self.labels[there]
        lowest = {"test/recall_min": recalls.min(axis=1)}
        if len(there) > MOST_RECALLS:
            return lowest
        return lowest | {f"test/recall_{of}": recall for of, recall in zip(there, recalls.T, strict=True)}

    def counts(self, tallies: Array) -> tuple[Array, Array]:
        predicted, recognised = np.split(np.nan_to_num(tallies[:, 2:]).astype(np.intp), 2, axis=1)
        return predicted, recognised


class NumberScorer(Scorer):
    """R² and the root of the mean squared error (RMSE) of number targets.

    R² is 1 - Σ (p - y)² / Σ (y - ȳ)² with the mean ȳ of this set, averaged over the targets; RMSE is over samples and
    targets together, in the units of the data set's files. `watch/spread` is the deviation of the predictions in units
    of that of the targets, the root of the mean square over the targets: 0 for a network that answers a constant.
    """

    kernel: ClassVar[str] = "Numbers"
    while_trained = 2

    def __init__(self, y: Array, scale: Array) -> None:
        y = y.astype(np.float64)
        self.centre, self.variance = y.mean(axis=0), y.var(axis=0)
        self.when_tested = 2 + 2 * len(scale)
        # A target that is constant here has no R², and is left out of the mean.
        varies = ~is_constant(y)
        share = np.divide(1.0, self.variance * varies.sum(), out=np.zeros_like(scale), where=varies)
        self.facts = np.stack([share, np.square(scale) / len(scale), self.centre])
        self.has_r2 = bool(varies.any())

    def trained(self, z: Array, p: Array, truth: Array) -> Array:
        squares = np.square(np.subtract(p, truth, dtype=np.float64)).sum(axis=-1)
        return np.stack([(squares * weights).sum(axis=-1) for weights in self.facts[:2]])

    def tested(self, z: Array, p: Array, truth: Array) -> Array:
        apart = p - self.facts[2][:, None]
        moments = [apart.sum(axis=-1).T, np.square(apart).sum(axis=-1).T]
        return np.concatenate([self.trained(z, p, truth), *moments])

    def of_training(self, tallies: Array, rows: int) -> dict[str, Array]:
        return {f"train/{name}": values for name, values in self._errors(tallies, rows).items()}

    def of_test(self, tallies: Array, rows: int) -> dict[str, Array]:
        sums, squares = np.split(tallies[:, 2:] / rows, 2, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):  # of a lane that diverges
            # Rounding may make the variance of a constant negative.
            spread = np.sqrt((np.maximum(squares - np.square(sums), 0) * self.facts[0]).sum(axis=1))
        found = {f"test/{name}": values for name, values in self._errors(tallies, rows).items()}
        return found | {"watch/spread": spread}

    def _errors(self, tallies: Array, rows: int) -> Mapping[str, Array]:
        r2 = 1 - tallies[:, 0] / rows if self.has_r2 else np.full(len(tallies), np.nan)
        return {"r2": r2, "rmse": np.sqrt(tallies[:, 1] / rows)}


class LabelScorer(Scorer):
    """Share of labels right (`accuracy`), of samples with all labels right (`exact_match`), and macro F1.

    A label is answered with yes where p > 1/2. F1 of a label is 2 TP / (2 TP + FP + FN); `macro_f1` is the mean over
    the labels, without those that are neither there nor predicted. `watch/constant` is the share of the labels that get
    the same answer for every sample.
    """

    kernel: ClassVar[str] = "Labels"
    while_trained = 2

    def __init__(self, labels: int) -> None:
        self.labels = labels
        self.when_tested = 2 + 3 * labels

    def trained(self, z: Array, p: Array, truth: Array) -> Array:
        right = (p > 0.5) == (truth > 0.5)
        return np.stack([right.sum(axis=(-2, -1)), right.all(axis=-2).sum(axis=-1)])

    def tested(self, z: Array, p: Array, truth: Array) -> Array:
        answered, given = p > 0.5, np.broadcast_to(truth > 0.5, p.shape)
        counts = [(answered & given).sum(axis=-1), answered.sum(axis=-1), given.sum(axis=-1)]
        return np.concatenate([self.trained(z, p, truth), *(count.T for count in counts)])

    def of_training(self, tallies: Array, rows: int) -> dict[str, Array]:
        right, exact = self._shares(tallies, rows)
        return {"train/accuracy": right, "train/exact_match": exact}

    def of_test(self, tallies: Array, rows: int) -> dict[str, Array]:
        right, exact = self._shares(tallies, rows)
        both, answered, given = np.split(tallies[:, 2:], 3, axis=1)
        either = answered + given
        f1 = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0)
        known = np.maximum((either > 0).sum(axis=1), 1)
        constant = ((answered == 0) | (answered == rows)).mean(axis=1)
        return {
            "test/accuracy": right,
            "test/exact_match": exact,
            "test/macro_f1": f1.sum(axis=1) / known,
            "watch/constant": constant,
        }

    def _shares(self, tallies: Array, rows: int) -> tuple[Array, Array]:
        return tallies[:, 0] / (rows * self.labels), tallies[:, 1] / rows


def _predicted(z: Array) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The predicted class `(K, n)`: the first largest logit; with a single unit, whether p > 1/2."""
    return np.argmax(z, axis=-2) if z.shape[-2] > 1 else (z[:, 0] > 0).astype(np.intp)
