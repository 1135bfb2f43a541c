"""Verdicts: how a trial's training went, with a reason that a learner understands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ablate.diagnosis.checks import Check
from ablate.diagnosis.measure import TOLERANCE
from ablate.training.loop import Summary

TARGET_ACCURACY = 0.9
DIVERGED_RATIO = 2.0
COLLAPSED_SHARE = 0.9
COLLAPSED_MARGIN = 0.05
STUCK_DROP = 0.02
STUCK_MARGIN = 0.25
SLOW_DROP = 0.02
SLOW_TAIL = 0.2
LEARNED = 0.99


@dataclass(frozen=True)
class Verdict:
    """A word for how a trial went, and the reason for it in one sentence."""

    name: str
    why: str


def verdict(summary: Summary, check: Check | None = None) -> Verdict:
    """The first of these that holds: failed, ascending, diverged, collapsed, stuck, slow, trained, plateau.

    Anything else that the check before training found is added to the reason.
    """
    if summary.error is not None:
        return Verdict("failed", summary.error)
    if ascending := _ascending(check):
        return ascending
    rules = (_diverged, _collapsed, _stuck, _slow, _trained, _plateau)
    found = next(found for rule in rules if (found := rule(summary)))
    if check is None or check.is_right:
        return found
    return Verdict(found.name, f"{found.why}; the check before training found: {_advice(check)}")


def _ascending(check: Check | None) -> Verdict | None:
    if check is None or check.descent_cosine is None or check.descent_cosine >= 0:
        return None
    return Verdict("ascending", _advice(check))


def _advice(check: Check) -> str:
    """The advice of the check, with its figures if the gradient is not the loss's derivative."""
    advice = check.advice or "the step points uphill"
    if check.gradient_error is None or check.gradient_error <= TOLERANCE or check.descent_cosine is None:
        return advice
    return f"{advice} (gradient error {check.gradient_error:.2g}, descent cosine {check.descent_cosine:.2f})"


def _diverged(summary: Summary) -> Verdict | None:
    if summary.not_finite_step is not None:
        why = f"the loss is not a finite number any more at step {summary.not_finite_step} (epoch {summary.epochs})"
        return Verdict("diverged", why)
    if not math.isfinite(summary.train_loss):
        return Verdict("diverged", "the training loss is not a finite number")
    # A user's own loss may be negative: a rise by its own magnitude corresponds to doubling.
    if summary.train_loss - summary.initial_loss > (DIVERGED_RATIO - 1) * abs(summary.initial_loss):
        rise = f"from {summary.initial_loss:.3g} to {summary.train_loss:.3g}"
        return Verdict("diverged", f"the training loss rose {rise}, more than {DIVERGED_RATIO:g} times its start")
    return None


def _collapsed(summary: Summary) -> Verdict | None:
    total = sum(summary.predicted)
    most = max(range(len(summary.predicted)), key=summary.predicted.__getitem__)
    share, chance = summary.predicted[most] / total, summary.labels[most] / total
    # If the test set has one class only, predicting it always is right.
    if share < COLLAPSED_SHARE or abs(summary.test_accuracy - chance) > COLLAPSED_MARGIN or chance == 1:
        return None
    why = f"{share:.0%} of the test predictions are class {most}, so the accuracy is that class's share, {chance:.1%}"
    if share < 1:
        accuracy = f"the accuracy, {summary.test_accuracy:.1%}, is near that class's share, {chance:.1%}"
        why = f"{share:.0%} of the test predictions are class {most}, and {accuracy}"
    return Verdict("collapsed", why)


def _stuck(summary: Summary) -> Verdict | None:
    drop = _drop(summary.initial_loss, summary.train_loss)
    # An epoch's mean hides its end: a network that began to learn in the last steps of its only epoch has learned
    # something. So has one whose accuracy rises while too large a learning rate keeps its loss high.
    chance = max(summary.labels) / sum(summary.labels)
    if drop >= STUCK_DROP or summary.test_accuracy >= chance + STUCK_MARGIN:
        return None
    change = "did not fall" if drop <= 0 else f"fell by only {drop:.1%}"
    return Verdict(
        "stuck",
        f"the training loss {change}: {summary.initial_loss:.4g} at the start, {summary.train_loss:.4g} at the end",
    )


def _slow(summary: Summary) -> Verdict | None:
    drop = _late_drop(summary.test_losses)
    # A loss that jumps up and down is not falling just because its last jump was down; and once the training set is
    # learned, more epochs do not help.
    recent = summary.test_losses[len(summary.test_losses) // 2 :]
    lowest = summary.test_losses[-1] <= (1 + SLOW_DROP) * min(recent)
    if summary.test_accuracy >= TARGET_ACCURACY or drop <= SLOW_DROP or not lowest or summary.train_accuracy >= LEARNED:
        return None
    why = (
        f"the test loss still fell by {drop:.1%} over the last {_span(summary)} and the accuracy is"
        f" {summary.test_accuracy:.1%}: more epochs or a larger lr may do"
    )
    return Verdict("slow", why)


def _trained(summary: Summary) -> Verdict | None:
    if summary.test_accuracy < TARGET_ACCURACY:
        return None
    return Verdict("trained", f"the test accuracy is {summary.test_accuracy:.1%}, at or above {TARGET_ACCURACY:.0%}")


def _plateau(summary: Summary) -> Verdict:
    if summary.train_accuracy >= TARGET_ACCURACY:
        gap = f"the training accuracy is {summary.train_accuracy:.1%}, the test accuracy {summary.test_accuracy:.1%}"
        if summary.test_accuracy < 0.5:
            return Verdict("plateau", f"{gap}: it learned another task; do training and test labels mean the same?")
        return Verdict("plateau", f"{gap}: it fits the training set better than the task; more training data may do")
    drop = _late_drop(summary.test_losses)
    late = f"fell by only {drop:.1%} over the last {_span(summary)}" if 0 < drop <= SLOW_DROP else "falls no more"
    accuracy = f"{summary.test_accuracy:.1%}, below {TARGET_ACCURACY:.0%}"
    return Verdict("plateau", f"the test accuracy is {accuracy}, and the test loss {late}")


def _late_drop(losses: Sequence[float]) -> float:
    """The relative fall of the test loss over the last fifth of the epochs, at least the last one."""
    return _drop(losses[min(len(losses) - 2, math.floor((len(losses) - 1) * (1 - SLOW_TAIL)))], losses[-1])


def _span(summary: Summary) -> str:
    return "fifth" if len(summary.test_losses) > 5 else "epoch"


def _drop(start: float, end: float) -> float:
    """The relative fall of a loss from `start` to `end`."""
    return (start - end) / abs(start) if start else 0.0
