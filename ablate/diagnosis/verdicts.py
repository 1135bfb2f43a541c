"""Verdicts: how a trial's training went, with a reason that a learner understands."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablate.diagnosis.causes import Cause
from ablate.diagnosis.checks import Check
from ablate.diagnosis.curves import STILL, largest_drop, late_drop, late_rise, span, still_falls
from ablate.diagnosis.measure import TOLERANCE
from ablate.diagnosis.scored import judged
from ablate.problem.scoring import is_below_chance, is_unbalanced
from ablate.training.loop import Summary

DIVERGED_RATIO = 2.0
COLLAPSED_SHARE = 0.9
COLLAPSED_MARGIN = 0.05
# Of balanced classes at most this share of the others can be right where 90 % of the predictions are one class.
COLLAPSED_RECALL = 0.2
STUCK_DROP = 0.02
# So far above the share of the most frequent class, a network has learned something.
LEARNED_MARGIN = 0.25
LEARNED = 0.99
# Where classes are unbalanced, a class counts as recognised from this recall on. Of fewer rows it says nothing.
RECOGNISED, RECOGNISED_ROWS = 0.5, 5
RISE = 0.01
# Of fewer test samples, how far an accuracy is above the majority's share says nothing: three of four are soon right.
TELLING_ROWS = 20


@dataclass(frozen=True)
class Verdict:
    """A word for how a trial went, and the reason for it in one sentence."""

    name: str
    why: str


def verdict(
    summary: Summary, check: Check | None = None, causes: Callable[[str], Sequence[Cause]] = lambda _: ()
) -> Verdict:
    """The first of these that holds: failed, ascending, diverged, collapsed, stuck, slow, trained, plateau.

    What the check before training found is added to the reason, and so is, where the training went badly, the first of
    the causes for which there is evidence: `causes` is asked for them with the verdict's name.
    """
    if summary.error is not None:
        return Verdict("failed", summary.error)
    if ascending := _ascending(check):
        return ascending
    by_class = (_collapsed, _stuck, _slow, _trained, _plateau)
    rules = (_diverged, *(by_class if summary.task.has_classes else (_by_score,)))
    found = next(found for rule in rules if (found := rule(summary)))
    if found.name == "trained":
        return found if check is None or check.is_right else _although(found, check)
    # Where the check found a wrong gradient, or another task was learned, explain tries nothing.
    is_tried = (check is None or check.is_right or check.is_of_start) and not _learned_another_task(summary)
    said = [f"evidence: {cause if is_tried else cause.said}" for cause in causes(found.name)[:1]]
    if check is not None and not check.is_right:
        # Numbers that are not finite at the start follow from what the evidence shows, a wrong gradient does not.
        said.insert(len(said) if check.is_of_start else 0, f"the check before training found: {_advice(check)}")
    elif check is not None and check.large and summary.not_finite_step is not None:
        said.insert(0, f"the check before training found: {check.large}")
    return Verdict(found.name, "; ".join([found.why, *said]))


def _although(found: Verdict, check: Check) -> Verdict:
    return Verdict(found.name, f"{found.why}, although the check before training found: {_advice(check)}")


def _by_score(summary: Summary) -> Verdict:
    return Verdict(*judged(summary))


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
    if all(end - start > (DIVERGED_RATIO - 1) * abs(start) for _, start, end in summary.losses):
        name, start, end = summary.losses[-1]
        rise = f"the {name} loss rose from {start:.3g} to {end:.3g}, more than {DIVERGED_RATIO:g} times its start"
        return Verdict("diverged", rise)
    return None


def _collapsed(summary: Summary) -> Verdict | None:
    total = sum(summary.predicted)
    most = max(range(len(summary.predicted)), key=summary.predicted.__getitem__)
    share, chance = summary.predicted[most] / total, summary.labels[most] / total
    # If the test set has one class only, predicting it always is right.
    if share < COLLAPSED_SHARE or abs(summary.test_accuracy - chance) > COLLAPSED_MARGIN or chance == 1:
        return None
    others = (sum(summary.recognised) - summary.recognised[most]) / (total - summary.labels[most])
    if others > COLLAPSED_RECALL:
        return None
    why = f"{share:.0%} of the test predictions are class {most}, so the accuracy is that class's share, {chance:.1%}"
    if share < 1:
        accuracy = f"the accuracy, {summary.test_accuracy:.1%}, is near that class's share, {chance:.1%}"
        why = f"{share:.0%} of the test predictions are class {most}, and {accuracy}"
    return Verdict("collapsed", why)


def _stuck(summary: Summary) -> Verdict | None:
    drop, why = largest_drop(summary.losses)
    # An epoch's mean hides its end: a network that began to learn in the last steps of its only epoch has learned
    # something. So has one whose accuracy rises while too large a learning rate keeps its loss high.
    return None if drop >= STUCK_DROP or _has_learned(summary) else Verdict("stuck", why)


def _slow(summary: Summary) -> Verdict | None:
    # Once the training set is learned, more epochs do not help.
    if _is_trained(summary) or summary.train_accuracy >= LEARNED or not still_falls(summary.test_losses):
        return None
    drop = late_drop(summary.test_losses)
    why = (
        f"the test loss still fell by {drop:.1%} over the last {span(summary.test_losses)} and the accuracy is"
        f" {summary.test_accuracy:.1%}"
    )
    return Verdict("slow", why)


def _trained(summary: Summary) -> Verdict | None:
    if not _is_trained(summary):
        return None
    accuracy = f"the test accuracy is {summary.test_accuracy:.1%}, at or above {_percent(summary.target_accuracy)}"
    if is_unbalanced(summary.labels):
        (recall, least), few = _least_recognised(summary), _of_few_rows(summary)
        every = f"every class of {RECOGNISED_ROWS} or more test samples" if few else "every class"
        accuracy = f"{accuracy}, and {every} is recognised, class {least} the least, with a recall of {recall:.1%}"
        accuracy += "".join(f"; of class {of}, {right} of its {rows} are" for of, right, rows in few)
    if not math.isfinite(summary.test_loss):
        accuracy += ", although the test loss is not a finite number"
    return Verdict("trained", accuracy)


def _plateau(summary: Summary) -> Verdict:
    if summary.test_accuracy >= summary.target_accuracy:
        least = _least_recognised(summary)[1]
        rows = f"{summary.recognised[least]} of its {summary.labels[least]} test samples are recognised"
        majority = f"always predicting the most frequent class gives {_majority(summary):.1%}"
        why = f"the test accuracy, {summary.test_accuracy:.1%}, hides class {least}: {rows}; {majority}"
        return Verdict("plateau", why)
    if summary.train_accuracy >= summary.target_accuracy:
        gap = f"the training accuracy is {summary.train_accuracy:.1%}, the test accuracy {summary.test_accuracy:.1%}"
        if _learned_another_task(summary):
            question = "do inputs and labels of the two sets mean the same?"
            return Verdict("plateau", f"{gap}: it learned another task; {question}")
        return Verdict("plateau", f"{gap}: it fits the training set better than the task")
    drop = late_drop(summary.test_losses)
    late = (
        f"fell by only {drop:.1%} over the last {span(summary.test_losses)}" if 0 < drop <= STILL else "falls no more"
    )
    accuracy = f"{summary.test_accuracy:.1%}, below {_percent(summary.target_accuracy)}"
    tells = sum(summary.labels) >= TELLING_ROWS and _has_learned(summary)
    if tells and late_rise(summary.test_accuracies) <= RISE:
        above = f"well above the most frequent class's share, {_majority(summary):.1%}"
        accuracy = f"{accuracy}, and no longer rises; it is {above}"
    return Verdict("plateau", f"the test accuracy is {accuracy}, and the test loss {late}")


def _percent(share: float) -> str:
    """A share as short as it is exact: 90%, 97.5%."""
    return f"{share * 100:.10g}%"


def _majority(summary: Summary) -> float:
    """The accuracy of always predicting the most frequent class."""
    return max(summary.labels) / sum(summary.labels)


def _learned_another_task(summary: Summary) -> bool:
    if not summary.task.has_classes or summary.train_accuracy < summary.target_accuracy:
        return False
    recalls = [right / rows for right, rows in zip(summary.recognised, summary.labels, strict=True) if rows]
    return is_below_chance(sum(recalls) / len(recalls), len(recalls), sum(summary.labels))


def _has_learned(summary: Summary) -> bool:
    return summary.test_accuracy >= _majority(summary) + LEARNED_MARGIN


def _is_trained(summary: Summary) -> bool:
    """Whether the accuracy is reached and, where it could be without them, every class is recognised."""
    if summary.test_accuracy < summary.target_accuracy:
        return False
    return not is_unbalanced(summary.labels) or _least_recognised(summary)[0] >= RECOGNISED


def _of_few_rows(summary: Summary) -> list[tuple[int, int, int]]:
    """The classes of which a recall says nothing: which, how many test samples are recognised, and of how many."""
    counted = enumerate(zip(summary.recognised, summary.labels, strict=True))
    return [(of, right, rows) for of, (right, rows) in counted if 0 < rows < RECOGNISED_ROWS]


def _least_recognised(summary: Summary) -> tuple[float, int]:
    """The lowest recall of a class with enough test samples, and which class it is."""
    counted = enumerate(zip(summary.recognised, summary.labels, strict=True))
    return min((right / rows, of) for of, (right, rows) in counted if rows >= RECOGNISED_ROWS)
