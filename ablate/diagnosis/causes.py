"""Causes: what the evidence in a trial points to, the most basic first, each with the changes that would meet it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablate.config.settings import Settings, shown
from ablate.diagnosis.evidence import Evidence
from ablate.problem.scoring import ROWS_A_CLASS

# The size of inputs (root mean square) with which the usual rates and initialisations work.
SMALL_INPUTS, LARGE_INPUTS = 0.03, 10.0
# The same of targets that are numbers.
SMALL_TARGETS, LARGE_TARGETS = 0.1, 10.0
# A column this many times wider than the middle one hides the others.
UNLIKE = 20.0
# Test values so many times further out than the training values.
APART = 5.0
# What all layers together make of the size of an input.
TINY_GAIN = 1e-2
MANY = 0.5
# The second layer's gradient is at most this share of the last one's: hardly anything gets that far back.
SHRUNK = 0.1
# So many test labels of classes that were never seen explain an accuracy; fewer are a small training set's chance.
UNTRAINED = 0.2
# The verdicts on who has come to rest, or as good as.
STANDSTILL = ("collapsed", "stuck", "plateau")
# From this share on, always predicting one class looks like success.
MAJORITY = 0.65


@dataclass(frozen=True)
class Change:
    """Keys of a trial to change, with their new values."""

    keys: Mapping[str, Any]

    def __str__(self) -> str:
        return " ".join(f"{key}={_written(value)}" for key, value in self.keys.items())


@dataclass(frozen=True)
class Cause:
    """A cause for which the trial has evidence: what was measured, and which changes meet it, the likeliest first.

    `hint` says in words what the changes are; null: the first of them.
    """

    name: str
    said: str
    changes: Sequence[Change] = field(default_factory=list)
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.said}; ablate.explain tries {self.hint or self.changes[0]}" if self.changes else self.said


def causes(found: Evidence, settings: Settings, verdict: str) -> list[Cause]:
    """The causes for which there is evidence: targets, inputs, start, steps, depth, labels, imbalance.

    Beside a mistake on purpose no change is tried, and none is named.
    """
    rules: Sequence[Callable[[Evidence, Settings, str], Cause | None]]
    rules = (
        _unlike_test,
        _output_range,
        _targets,
        _inputs,
        _start_alike,
        _divided,
        _start_tiny,
        _start_large,
        _large_steps,
        _vanishing,
        _linear,
        _labels,
        _imbalance,
    )
    shown = [cause for rule in rules if (cause := rule(found, settings, verdict))]
    return shown if settings.bug == "none" else [replace(cause, changes=()) for cause in shown]


def _unlike_test(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    facts = found.facts
    width = facts.high - facts.low
    beyond = max(facts.test_high - facts.high, facts.low - facts.test_low)
    if not 0 < APART * width < beyond:
        return None
    said = (
        f"the test inputs lie between {facts.test_low:.3g} and {facts.test_high:.3g}, the training inputs between"
        f" {facts.low:.3g} and {facts.high:.3g}: scale both alike"
    )
    return Cause("test inputs", said)


def _inputs(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    facts = found.facts
    is_sure = found.is_sure and found.size > 2
    is_unlike = facts.largest_deviation >= UNLIKE * facts.median_deviation > 0
    if not (is_sure or found.size >= LARGE_INPUTS or found.size <= SMALL_INPUTS):
        return None
    if found.size == 0:
        return Cause("inputs", "every input is 0: there is nothing to learn from")
    range_ = f"the inputs lie between {facts.low:.4g} and {facts.high:.4g}"
    if is_unlike:
        narrow, wide = facts.smallest_deviation, facts.largest_deviation
        range_ = f"the columns of the inputs are of unlike scale, with deviations from {narrow:.3g} to {wide:.4g}"
    scale = "far from 1" if found.size >= LARGE_INPUTS or found.size <= SMALL_INPUTS else ""
    sure = f"the loss before the first update is {_first_loss(found)}" if is_sure else ""
    said = ", and ".join(part for part in (f"{range_}{', ' + scale if scale and not is_unlike else ''}", sure) if part)
    # Pixels and counts are not negative and come near 0; of other numbers the columns have a meaning of their own.
    is_table = is_unlike or facts.low < 0 or facts.low > facts.high - facts.low
    order = ("per_feature", "unit", "per_image") if is_table else ("unit", "per_image", "per_feature")
    changes = [Change({"data.normalize": way}) for way in order if way != settings.data.normalize]
    return Cause("inputs", said, changes)


def _output_range(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    facts = found.facts
    if settings.output != "sigmoid" or not (facts.target_low < 0 or facts.target_high > 1):
        return None
    said = f"the targets lie between {facts.target_low:.4g} and {facts.target_high:.4g}, a sigmoid's outputs in 0..1"
    return Cause("output", said, [Change({"model.output": "identity"})])


def _targets(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    size = found.facts.target_size
    if settings.data.learned.score != "r2" or SMALL_TARGETS <= size <= LARGE_TARGETS:
        return None
    between = f"the targets lie between {found.facts.target_low:.4g} and {found.facts.target_high:.4g}"
    said = f"{between}, far from the size 1 of the outputs that the network starts with"
    alone = Change({"data.normalize_targets": True})
    # Where the inputs are of another scale too, neither helps without the other.
    inputs = _inputs(found, settings, verdict)
    both = [Change({**alone.keys, **change.keys}) for change in inputs.changes] if inputs else []
    return Cause("targets", said, [*both, alone])


def _first_loss(found: Evidence) -> str:
    first = f"{found.initial_loss:.4g}" if math.isfinite(found.initial_loss) else "not a finite number"
    return f"{first}, where outputs that know nothing have {found.expected_loss:.4g}"


def _start_alike(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    if not found.alike:
        return None
    layers = " and ".join(found.alike)
    said = f"all units of {layers} start with the same weights, so that they stay alike and act as one"
    return Cause("start", said, _starts(settings))


def _divided(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    passes, divisor = math.prod(found.gains.values()), math.prod(found.divisors.values())
    if not passes <= TINY_GAIN < passes * divisor:
        return None
    key = "model.preactivation_divisor"
    by = f"{key}={settings.model.preactivation_divisor:g}" if _has_divisor(settings) else "the layers {divide: ...}"
    said = f"{by} leaves {passes:.1e} of an input's size behind all layers, {passes * divisor:.2g} without it"
    return Cause("start", said, [Change({key: 1.0})] if _has_divisor(settings) else [])


def _has_divisor(settings: Settings) -> bool:
    return settings.model.preactivation_divisor != 1


def _start_tiny(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    passes = math.prod(found.gains.values()) * math.prod(found.divisors.values())
    if found.alike or len(found.gains) < 2 or passes > TINY_GAIN:
        return None
    said = f"the weights start so small that the layers together pass on {passes:.1e} of an input's size"
    return Cause("start", f"{said}: hardly any gradient reaches them", _starts(settings))


def _start_large(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    parts: list[str] = []
    if found.is_sure and found.size < LARGE_INPUTS:
        parts.append(f"the loss before the first update is {_first_loss(found)}")
    if found.dead_units >= MANY:
        parts.append(f"{found.dead_units:.0%} of the ReLU units give 0 on every sample before the first update")
    if found.saturated >= MANY:
        at = "the sigmoid or tanh values are at the function's ends"
        parts.append(f"{found.saturated:.0%} of {at} before the first update")
    if not parts:
        return None
    name, largest = max(found.gains.items(), key=lambda item: item[1])
    weights = f"the weights of {name} are {largest:.3g} times as large as keeps an input's size"
    said = ", ".join(parts) + (f"; {weights}" if largest > 2 else "")
    if not found.dead_units >= MANY:
        return Cause("start", said, _starts(settings))
    changes = [Change({"seed": settings.seed + 1}), *_starts(settings), Change({"model.activation": "leaky_relu"})]
    return Cause("start", said, changes, "another seed, or another init")


def _large_steps(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    died = found.dead_at_end >= MANY > found.dead_units
    # Who learned much before it came to rest took large steps on its way, too.
    if verdict not in STANDSTILL or not (died or (found.too_large and verdict != "plateau")):
        return None
    parts = []
    if died:
        shares = f"{found.dead_at_end:.0%} of the ReLU units give 0 on every sample at the end"
        parts.append(f"{shares}, {found.dead_units:.0%} before the first update")
    if found.too_large:
        parts.append(f"{found.too_large} times a number of the output layer moved by more than 1 in one step")
    changes = [Change({"lr": float(f"{settings.lr * factor:.3g}")}) for factor in (0.1, 0.01)]
    return Cause("steps", "; ".join(parts), [*changes, *_activations(settings, *["leaky_relu"] * died)])


def _vanishing(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    is_of_start = found.alike or math.prod(found.gains.values()) <= TINY_GAIN
    if verdict not in (*STANDSTILL, "slow") or is_of_start or found.dead_at_end >= MANY or len(found.gradients) < 3:
        return None
    # The first layer's grows with the inputs.
    _, (back, least), *_, (last, most) = found.gradients.items()
    if not least <= SHRUNK * most < math.inf:
        return None
    said = f"before the first update the gradient at {back} is {least / most:.2g} times that at {last}"
    changes = [*_activations(settings, "relu", "tanh"), *_starts(settings)]
    return Cause("depth", f"{said}: it shrinks on its way back", changes)


def _linear(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    if not found.is_linear or verdict not in STANDSTILL:
        return None
    said = "the network is linear: no hidden layer has an activation but identity, so that all together act as one"
    return Cause("activation", said, _activations(settings, "tanh", "relu"))


def _activations(settings: Settings, *names: str) -> list[Change]:
    """Other activations for the hidden layers, of a model that has that key."""
    if settings.model.hidden is None:
        return []
    return [Change({"model.activation": name}) for name in names if name != settings.model.activation]


def _starts(settings: Settings) -> list[Change]:
    return [Change({"init": name}) for name in ("glorot_uniform", "he") if name != settings.init.name]


def _labels(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    facts = found.facts
    share = sum(facts.test_counts[label] for label in facts.untrained) / max(sum(facts.test_counts), 1)
    if share < UNTRAINED:
        return None
    few = ", ".join(map(str, facts.untrained[:5])) + (", ..." if len(facts.untrained) > 5 else "")
    return Cause("labels", f"{share:.0%} of the test labels are classes that no training label has: {few}")


def _imbalance(found: Evidence, settings: Settings, verdict: str) -> Cause | None:
    counts, share = found.facts.train_counts, found.facts.majority_share
    if (
        sum(counts) < ROWS_A_CLASS * len(counts)
        or share is None
        or share < MAJORITY
        or verdict not in ("collapsed", "plateau")
    ):
        return None
    rows = sum(found.facts.train_counts)
    others = rows - max(found.facts.train_counts)
    # A rare class has some rows, which a share may round away.
    most = f"all but {others} of the {rows:,}" if 0.9995 <= share < 1 else f"{share:.1%} of the"
    said = f"{most} training labels are class {found.facts.majority}, so that always predicting it costs little"
    changes = [] if settings.loss.class_weights else [Change({"loss.class_weights": "balanced"})]
    return Cause("imbalance", said, changes)


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_written, value))}]"
    return shown(value)
