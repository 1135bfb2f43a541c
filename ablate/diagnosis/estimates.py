"""Estimates: what the score on some test samples says of the score on all that could have been drawn.

A few test samples tell a good change from a lucky one only where its gain is large, the more so the more were tried.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from ablate.training.loop import Summary

# The probability that any of the changes tried is taken for better, where none is.
ERROR = 0.05


@dataclass(frozen=True)
class Estimate:
    """A score and the variance of its error; that of a constant answer has none."""

    value: float
    variance: float = 0.0

    def exceeds(self, other: "Estimate", deviations: float) -> bool:
        """Whether it is higher by more than so many standard deviations of the difference."""
        return self.value - other.value > deviations * math.sqrt(self.variance + other.variance)


def of_summary(summary: Summary) -> Estimate:
    """The estimate of the mean recall by class, or of the score of a task without classes.

    A recall counts two samples more than there are, right as often as by guessing (A. Agresti and B. Caffo, 2000): of
    few samples, all or none right is not sure. The labels of one sample may all be right or wrong together. The squared
    errors of numbers are taken for those of normal errors, whose variance is twice the square of their mean.
    """
    if summary.task.has_classes:
        counts = [(right, rows) for right, rows in zip(summary.recognised, summary.labels, strict=True) if rows]
        recalls = [_share(right, rows, 1 / len(counts)) for right, rows in counts]
        many = len(recalls)
        return Estimate(sum(each.value for each in recalls) / many, sum(each.variance for each in recalls) / many**2)
    score, rows = summary.test_score, summary.test_rows
    if summary.task.score == "r2":
        return Estimate(score, 2 * (1 - score) ** 2 / rows)
    return _share(score * rows, rows, summary.baseline)


def _share(right: float, rows: float, by_guessing: float) -> Estimate:
    share = (right + 2 * by_guessing) / (rows + 2)
    return Estimate(share, share * (1 - share) / (rows + 2))


def deviations(tried: int, rows: int) -> float:
    """How many standard deviations a difference must have on so many rows, if the best of those tried is looked at.

    Bonferroni's bound, and the first term of the expansion of Student's t about the normal distribution.
    """
    z = NormalDist().inv_cdf(1 - ERROR / tried)
    return z + (z**3 + z) / (4 * max(rows - 1, 1))
