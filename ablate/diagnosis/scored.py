"""Verdicts on tasks without classes, from the score by which their trials are compared.

How good a score is, is told by `skill`: the share of the way from the best constant answer to a perfect one. For number
targets that is R² itself.
"""

from ablate.diagnosis.curves import STILL, largest_drop, late_drop, span, still_falls
from ablate.training.loop import Summary

# Predictions whose deviation is below this share of the targets' are a constant.
CONSTANT_SPREAD = 0.05
# How near the best constant answer a network is that has learned nothing.
NO_SKILL = 0.05
STUCK_DROP = 0.02
# From this skill on a network has learned something, whatever its loss does.
LEARNED_SKILL = 0.25
# Where one label is rare, always answering no is right nearly always: half of that answer's mistakes must be gone. A
# constant that scores nothing leaves it to the target alone.
TRAINED_SKILL = 0.5
LEARNED = 0.99

Judged = tuple[str, str]


def judged(summary: Summary) -> Judged:
    """The first of these that holds, and why: collapsed, stuck, slow, trained, plateau."""
    return _collapsed(summary) or _stuck(summary) or _slow(summary) or _trained(summary) or _plateau(summary)


def skill(summary: Summary) -> float:
    """The share of the way from the best constant answer's score to a perfect one."""
    room = 1 - summary.baseline
    return (summary.test_score - summary.baseline) / room if room > 0 else 1.0


def _score(summary: Summary) -> str:
    return f"the test set's {summary.task.called} is {summary.task.written(summary.test_score)}"


def _collapsed(summary: Summary) -> Judged | None:
    spread, constant = summary.figures.get("watch/spread"), summary.figures.get("watch/constant")
    if summary.test_rows < 2 or skill(summary) > NO_SKILL:
        return None
    if spread is not None and spread < CONSTANT_SPREAD:
        found = f"the predictions are nearly the same for every sample: their deviation is {spread:.1%} of the targets'"
        return "collapsed", f"{found}, and {_score(summary)}, where a constant has at most 0"
    if constant == 1:
        answer = f"that of the best constant answer is {summary.task.written(summary.baseline)}"
        return "collapsed", f"every label gets the same answer for every test sample: {_score(summary)}, {answer}"
    return None


def _stuck(summary: Summary) -> Judged | None:
    drop, why = largest_drop(summary.losses)
    return None if drop >= STUCK_DROP or skill(summary) >= LEARNED_SKILL else ("stuck", why)


def _slow(summary: Summary) -> Judged | None:
    if _is_trained(summary) or summary.train_score >= LEARNED or not still_falls(summary.test_losses):
        return None
    drop = late_drop(summary.test_losses)
    fall = f"the test loss still fell by {drop:.1%} over the last {span(summary.test_losses)}"
    return "slow", f"{fall} and {_score(summary)}"


def _is_trained(summary: Summary) -> bool:
    return summary.test_score >= summary.target and (summary.baseline <= 0 or skill(summary) >= TRAINED_SKILL)


def _trained(summary: Summary) -> Judged | None:
    if not _is_trained(summary):
        return None
    return "trained", f"{_score(summary)}, at or above {summary.task.written(summary.target)}{_beside(summary)}"


def _plateau(summary: Summary) -> Judged:
    if summary.test_score >= summary.target:
        answer = f"the best constant answer has {summary.task.written(summary.baseline)}"
        return "plateau", f"{_score(summary)}, but {answer}: more than half of its mistakes are left"
    target = summary.task.written(summary.target)
    if summary.train_score >= summary.target:
        gap = f"the training set's {summary.task.called} is {summary.task.written(summary.train_score)}"
        return "plateau", f"{gap}, {_score(summary)}: it fits the training set better than the task"
    drop = late_drop(summary.test_losses)
    late = (
        f"fell by only {drop:.1%} over the last {span(summary.test_losses)}" if 0 < drop <= STILL else "falls no more"
    )
    below = f"below target_{summary.task.score}={target}"
    return "plateau", f"{_score(summary)}, {below}, and the test loss {late}{_beside(summary)}"


def _beside(summary: Summary) -> str:
    """What stands beside the score."""
    rmse, exact = summary.figures.get("test/rmse"), summary.figures.get("test/exact_match")
    if rmse is not None:
        return f" (RMSE {rmse:.4g})"
    if exact is None:
        return ""
    answer = summary.task.written(summary.baseline)
    return f" (all labels of a sample: {exact:.1%}; the best constant answer: {answer})"
