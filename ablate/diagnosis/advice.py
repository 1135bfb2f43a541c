"""What is known about a trial that has run, and what to try next: what the evidence points to, then the usual keys.

Every change is tried before it is advised (`ablate.diagnosis.rehearsal`); what does not help there is not advised.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ablate.config.parse import parse
from ablate.diagnosis.causes import Cause, Change, causes
from ablate.diagnosis.checks import Check
from ablate.diagnosis.evidence import Evidence
from ablate.diagnosis.held_back import held_back
from ablate.diagnosis.rehearsal import Outcome, Rehearsal
from ablate.errors import ConfigError
from ablate.problem.mistakes import MISTAKES
from ablate.problem.optimizers import OPTIMIZERS
from ablate.problem.scoring import is_below_chance
from ablate.problem.tasks import CLASSIFICATION, TASKS, Task

# What is worth looking at of what was watched.
DEAD, SATURATED, SURE, NOT_SURE, LEARNED = 0.2, 0.5, 0.999, 0.95, 0.8
# How far the score on the test set is behind that on the training set.
GAP = 0.1
# The gradient has shrunk to this share of its largest, and the training is not done: a flat place.
FLAT = 0.05
# So few hidden units that one bad start decides.
FEW_UNITS = 4
FEW_STEPS = 10
# Of so many dead units, time wakes none.
ALL_DEAD = 0.9
MOST_LINES = 4
# What meets the evidence comes before what recognises no more than this much more.
AHEAD = 0.15


@dataclass(frozen=True)
class Known:
    """A trial read from its folder: configuration, row, check and evidence (None if there was none), all metrics.

    `notices` say how its data were taken, where that is not as they stand in their files.
    """

    config: Mapping[str, Any]
    row: Mapping[str, Any]
    check: Check | None
    metrics: list[dict[str, Any]]
    notices: Sequence[str] = ()
    evidence: Evidence | None = None

    def last(self, name: str) -> float | None:
        """The last recorded value of a metric, None if there is none."""
        return next((record[name] for record in reversed(self.metrics) if record.get(name) is not None), None)

    def curve(self, name: str) -> list[float]:
        """All recorded values of a metric."""
        return [record[name] for record in self.metrics if record.get(name) is not None]

    @property
    def task(self) -> Task:
        """What the network was to learn."""
        return TASKS.get(self.config["data"].get("task", CLASSIFICATION.name))

    @property
    def train_score(self) -> float | None:
        return self.last(f"train/{self.task.score}")

    @property
    def test_score(self) -> float | None:
        return self.last(f"test/{self.task.score}")

    @property
    def recall(self) -> float | None:
        """The mean recall by class at the end; where it was not recorded by class, the accuracy is near it."""
        last = {name: value for record in self.metrics for name, value in record.items() if value is not None}
        recalls = [value for name, value in last.items() if re.fullmatch(r"test/recall_\d+", name)]
        return sum(recalls) / len(recalls) if recalls else self.test_score

    def total(self, name: str) -> float:
        """The sum of a counting metric over the whole training."""
        return sum(record.get(name) or 0 for record in self.metrics)

    @property
    def creeps(self) -> bool:
        """Whether the test loss was lowest at the end, no step was large and the outputs are not at their ends."""
        curve = self.curve("test/loss")
        is_lowest = len(curve) > 2 and curve[-1] <= min(curve) < curve[0]
        return is_lowest and not self.total("watch/too_large") and not self.has_run_away

    @property
    def has_run_away(self) -> bool:
        """Whether the outputs are at their ends although not all predictions are right."""
        sure, right = self.last("test/confidence"), self.test_score
        return sure is not None and right is not None and sure > SURE and right < NOT_SURE

    @property
    def is_flat(self) -> bool:
        """Whether the gradient has shrunk to little although the training set is not learned."""
        norms, learned = self.curve("grad/norm"), self.train_score
        return bool(norms) and norms[-1] <= FLAT * max(norms) and (learned or 0) < NOT_SURE

    @property
    def is_overfit(self) -> bool:
        """Whether the training set is learned, and the test set clearly less."""
        learned, reached = self.train_score, self.test_score
        return learned is not None and reached is not None and learned >= LEARNED and learned - reached >= GAP

    @property
    def hidden(self) -> Sequence[int]:
        """The hidden units of an mlp, by layer; empty for other models."""
        hidden = self.config["model"].get("hidden") or []
        return [hidden] if isinstance(hidden, int) else hidden

    @cached_property
    def causes(self) -> list[Cause]:
        """The causes for which there is evidence; none if the configuration cannot be read any more."""
        if self.evidence is None:
            return []
        try:
            return causes(self.evidence, parse(self.config), self.row["verdict"])
        except ConfigError:
            return []


def advice(known: Known, tried: Rehearsal | None = None) -> list[str]:
    """What to try, the most likely first; never empty. Without a rehearsal, changes rest on the evidence alone.

    What else did better in the rehearsal is in `ranked`, from `MOST_LINES` on.
    """
    lines = list(_certain(known))
    if lines:
        return lines
    if tried is None:
        return [*_of_evidence(known), *_untried(known), *_left(known)]
    return [f"{outcome.change}: {tried.described(outcome)}" for outcome in ranked(known, tried)[:MOST_LINES]] or list(
        _left(known, tried)
    )


def ranked(known: Known, tried: Rehearsal) -> list[Outcome]:
    """The changes that did better in a rehearsal, as advised: what meets the evidence ahead of what does not."""
    met = {str(change) for cause in known.causes for change in cause.changes}
    return sorted(tried.better, key=lambda outcome: -outcome.rank - AHEAD * (str(outcome.change) in met))


def changes(known: Known) -> list[Change]:
    """What is worth trying: each once, and of those that help alike the first is advised first.

    What undoes a key that holds training back comes first, then what meets the evidence, then loss, start, rate,
    length and size. Empty where there is nothing to try: the trial trained or failed, or its check says what is wrong.
    """
    if list(_certain(known)):
        return []
    met = [change for cause in known.causes for change in cause.changes]
    found = [*map(Change, _undone(known)), *met]
    # Where the evidence names a cause, it is compared with a few others, for more steps.
    for rule in _OF_OVERFIT if known.is_overfit else (_loss, _start, _rate) if met else _RULES:
        found += [Change(keys) for keys in rule(known)]
    return list({str(change): change for change in found}.values())


def _certain(known: Known) -> Iterator[str]:
    """What needs no trying: the check's finding, a mistake on purpose, and what a verdict says by itself."""
    row, check = known.row, known.check
    is_told = check is not None and check.advice is not None and not check.is_of_start
    if is_told and check is not None and check.advice:
        yield check.advice
    if _learned_another_task(known):
        yield "look at samples of both sets beside their labels: do inputs and labels of the two mean the same?"
    bug = MISTAKES.get(known.config.get("bug", "none"))
    if bug.mistake and (check is None or check.guess != bug.name):
        yield f"this trial has bug={bug.name} on purpose: {bug.mistake}; {bug.fix}"
    match row["verdict"]:
        case "ascending" if not is_told:
            yield "turn the sign of the update: update_sign=minus with residual=p-y, or plus with y-p"
        case "failed":
            yield "mend what is said above; the sweep's ablate.log may say more"
        case "interrupted":
            yield "let it run to its end: the same command starts a new sweep"
        case "trained" if is_told:
            so_far = "" if known.test_score is None else f", to {known.task.written(known.test_score)}"
            yield (
                f"it trains all the same{so_far}, which does not make it right: mend it, then compare the two with"
                " -m 'seed=range(0,5)'"
            )
        case "trained":
            well = "the training went well; heed what is said of its data" if known.notices else "nothing is wrong here"
            if row.get("test_loss", 0.0) is None:
                well = "the training went well, but for test samples whose loss is not a finite number"
            yield f"{well}; repeat it with -m 'seed=range(0,5)' to see how much is chance"


def _learned_another_task(known: Known) -> bool:
    """Whether the training set is learned and the test set is recognised less than by guessing."""
    learned, recall = known.train_score, known.recall
    there = [] if known.evidence is None else [rows for rows in known.evidence.facts.test_counts if rows]
    if not there or learned is None or recall is None:
        return False
    if any(cause.name == "test inputs" for cause in known.causes):
        return False
    return learned >= LEARNED and is_below_chance(recall, len(there), sum(there))


def _of_evidence(known: Known) -> Iterator[str]:
    for cause in known.causes:
        if cause.changes:
            yield f"{cause.hint or cause.changes[0]}: {cause.said}"


def _untried(known: Known) -> Iterator[str]:
    met = {str(change) for cause in known.causes for change in cause.changes}
    others = [str(change) for change in changes(known) if str(change) not in met]
    yield f"not tried yet: {', '.join(others)}"


def _left(known: Known, tried: Rehearsal | None = None) -> Iterator[str]:
    """What to look at where nothing that was tried helps, or nothing could be tried."""
    for cause in known.causes:
        if not cause.changes:
            yield cause.said
    accuracy, learned = known.test_score, known.train_score
    if tried is not None and tried.learns_nothing and tried.steps >= FEW_STEPS and not known.causes:
        yield "nothing that was tried learns from these inputs: do the rows of inputs and of labels belong together?"
    elif known.row["verdict"] == "plateau" and accuracy is not None and learned is not None:
        target = known.config.get(f"target_{known.task.score}")
        if target is not None and learned >= target > accuracy:
            yield "more training data, or data more like the test set: the training set is learned"
        elif accuracy >= 0.01:
            share = math.floor(accuracy * 100) / 100
            written = known.task.written(accuracy)
            yield f"if {written} is what these data allow, target_{known.task.score}={share:g} says so"
    yield "look at the curves of training and test loss, curves.png in the folder of the sweep"


# The usual keys, in the order in which causes are looked for. Each rule yields keys with their new values.


def _undone(known: Known) -> Iterator[dict[str, Any]]:
    """Each key that holds training back at its default, and all of them at once."""
    each = held_back(known.config)
    yield from each
    if len(each) > 1:
        yield {key: value for keys in each for key, value in keys.items()}


def _loss(known: Known) -> Iterator[dict[str, Any]]:
    loss = known.config["loss"]
    is_usual = loss["name"] in ("ce", "bce", "focal", "label_smoothing")
    if loss["name"] == "custom" or (known.task.has_classes and not is_usual):
        yield {"loss": known.task.usual_loss, "model.output": "auto"}


def _start(known: Known) -> Iterator[dict[str, Any]]:
    if known.config["init"]["name"] in ("normal", "uniform01", "uniform", "zeros"):
        yield {"init": "glorot_uniform"}
    is_tiny = known.hidden and max(known.hidden) <= FEW_UNITS
    is_small_step = not known.creeps and not known.total("watch/too_large")
    if is_tiny or (known.is_flat and is_small_step and not known.causes):
        seed = known.config["seed"]
        yield from ({"seed": seed + more} for more in (1, 2, 3))
    if is_tiny:
        yield {"model.hidden": [4 * units for units in known.hidden]}


def _units(known: Known) -> Iterator[dict[str, Any]]:
    if known.hidden and (known.last("watch/dead_units") or 0) > DEAD:
        yield {"model.activation": "leaky_relu"}
    if known.hidden and (known.last("watch/saturated") or 0) > SATURATED:
        yield {"model.activation": "relu"}


def _size(known: Known) -> Iterator[dict[str, Any]]:
    """A layer alone tells apart only what a plane does."""
    if known.evidence is not None and len(known.evidence.gains) == 1 and known.row["verdict"] in ("plateau", "stuck"):
        yield {"model": "mlp", "model.activation": "relu"}


def _rate(known: Known) -> Iterator[dict[str, Any]]:
    lr, output_lr = known.config["lr"], known.config.get("output_lr")
    is_large = known.row["verdict"] == "diverged" or known.has_run_away or bool(known.total("watch/too_large"))
    name = known.config["optimizer"]["name"]
    if any(cause.changes for cause in known.causes):
        yield from _rates(known, (0.1, 0.01) if is_large else (0.1, 10))
        if name == "sgd":
            yield {"optimizer": "adam", "lr": 0.001}
        return
    larger = () if is_large else (10, 100, 1000) if known.row["verdict"] == "stuck" else (3, 10, 50)
    smaller = () if known.creeps else (0.3, 0.1, 0.01)
    yield from _rates(known, (*smaller, *larger))
    if smaller and (known.evidence is None or len(known.evidence.gains) > 1):
        yield from ({"output_lr": _round((output_lr or lr) * factor)} for factor in (0.1, 0.01))
    if name == "sgd":
        yield from ({"optimizer": "adam", "lr": rate} for rate in (0.001, 0.01))


def _rates(known: Known, factors: Sequence[float]) -> Iterator[dict[str, Any]]:
    """The learning rate times each factor and, where all of those are far below it, the optimizer's usual one."""
    rates = [_round(known.config["lr"] * factor) for factor in factors]
    usual = OPTIMIZERS.get(known.config["optimizer"]["name"]).usual_rate
    is_far_below = any(factor > 1 for factor in factors) and max(rates) < usual
    yield from ({"lr": rate} for rate in [*rates, *[usual] * is_far_below])


def _length(known: Known) -> Iterator[dict[str, Any]]:
    steps = max((record["step"] for record in known.metrics), default=0) / max(known.config["epochs"], 1)
    batch = known.config.get("batch_size")
    if batch and batch > 32 and steps <= FEW_STEPS:
        yield {"batch_size": 32}
    if known.row["verdict"] != "diverged" and not (known.last("watch/dead_units") or 0) >= ALL_DEAD:
        yield {"epochs": 3 * known.config["epochs"]}


def _fit(known: Known) -> Iterator[dict[str, Any]]:
    """What keeps a network from learning the training set by heart."""
    if not known.is_overfit:
        return
    if known.config["data"].get("train_limit"):
        yield {"data.train_limit": None}
    yield from ({"optimizer.weight_decay": decay} for decay in (0.001, 0.01))
    if known.hidden:
        yield from ({"model.dropout": share} for share in (0.2, 0.5))
    if known.hidden and max(known.hidden) > FEW_UNITS:
        yield {"model.hidden": [max(units // 4, FEW_UNITS) for units in known.hidden]}
    yield from ({"epochs": epochs} for share in (3, 10) if (epochs := known.config["epochs"] // share))


_RULES: Sequence[Callable[[Known], Iterator[dict[str, Any]]]] = (_loss, _start, _units, _size, _fit, _rate, _length)
# Where the training set is learned, its loss need not fall faster.
_OF_OVERFIT = (_loss, _start, _fit)


def _round(rate: float) -> float:
    return float(f"{rate:.3g}")
