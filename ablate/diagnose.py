"""Verdicts: how a trial's training went, with a reason a learner understands."""

import math
from dataclasses import dataclass

from ablate.train import Summary

TARGET_ACCURACY = 0.9
DIVERGED_RATIO = 2.0
COLLAPSED_SHARE = 0.9
COLLAPSED_MARGIN = 0.05
STUCK_DROP = 0.02
SLOW_DROP = 0.02
SLOW_TAIL = 0.2


@dataclass(frozen=True)
class Verdict:
    """One of DESIGN's words, and why it was given, in one sentence."""

    name: str
    why: str


def verdict(summary: Summary) -> Verdict:
    """The first of these that holds: failed, diverged, collapsed, stuck, slow, trained, plateau.

    `ascending` comes with the checks before training; without them its trials show as diverged or collapsed.
    """
    for rule in (_failed, _diverged, _collapsed, _stuck, _slow, _trained):
        found = rule(summary)
        if found:
            return found
    accuracy = f"{summary.test_accuracy:.1%}, below {TARGET_ACCURACY:.0%}"
    return Verdict("plateau", f"the test accuracy is {accuracy}, and the test loss falls no more")


def _failed(summary: Summary) -> Verdict | None:
    return Verdict("failed", summary.error) if summary.error is not None else None


def _diverged(summary: Summary) -> Verdict | None:
    if summary.not_finite_step is not None:
        why = f"the loss is not a finite number any more at step {summary.not_finite_step} (epoch {summary.epochs})"
        return Verdict("diverged", why)
    if not math.isfinite(summary.train_loss):
        return Verdict("diverged", "the training loss is not a finite number")
    if summary.train_loss > DIVERGED_RATIO * summary.initial_loss:
        ratio = summary.train_loss / summary.initial_loss if summary.initial_loss else math.inf
        rise = f"from {summary.initial_loss:.3g} to {summary.train_loss:.3g}"
        why = f"the training loss rose {rise}, {ratio:.1f} times its start"
        return Verdict("diverged", why)
    return None


def _collapsed(summary: Summary) -> Verdict | None:
    total = sum(summary.predicted)
    most = max(range(len(summary.predicted)), key=summary.predicted.__getitem__)
    share, chance = summary.predicted[most] / total, summary.labels[most] / total
    if share < COLLAPSED_SHARE or abs(summary.test_accuracy - chance) > COLLAPSED_MARGIN:
        return None
    why = f"{share:.0%} of the test predictions are class {most}, so the accuracy is that class's share, {chance:.1%}"
    return Verdict("collapsed", why)


def _stuck(summary: Summary) -> Verdict | None:
    drop = _drop(summary.initial_loss, summary.train_loss)
    if drop >= STUCK_DROP:
        return None
    change = "did not fall" if drop <= 0 else f"fell by only {drop:.1%}"
    return Verdict(
        "stuck",
        f"the training loss {change}: {summary.initial_loss:.4g} at the start, {summary.train_loss:.4g} at the end",
    )


def _slow(summary: Summary) -> Verdict | None:
    losses = summary.test_losses
    start = losses[min(len(losses) - 2, math.floor((len(losses) - 1) * (1 - SLOW_TAIL)))]
    drop = _drop(start, losses[-1])
    if summary.test_accuracy >= TARGET_ACCURACY or drop <= SLOW_DROP:
        return None
    why = (
        f"the test loss still fell by {drop:.1%} over the last fifth and the accuracy is {summary.test_accuracy:.1%}:"
        " more epochs or a larger lr may do"
    )
    return Verdict("slow", why)


def _trained(summary: Summary) -> Verdict | None:
    if summary.test_accuracy < TARGET_ACCURACY:
        return None
    return Verdict("trained", f"the test accuracy is {summary.test_accuracy:.1%}, at or above {TARGET_ACCURACY:.0%}")


def _drop(start: float, end: float) -> float:
    """The share by which a loss fell from `start` to `end`; losses are not negative."""
    return (start - end) / start if start > 0 else 0.0
