"""How a curve ends: what all verdicts ask of the losses and scores by epoch."""

import math
from collections.abc import Sequence

# The end of a curve: its last fifth, at least its last value.
TAIL = 0.2
# A loss that falls by more than this over that end falls still.
STILL = 0.02
# So does one that falls there, epoch for epoch, by this share of what it did before: it has hardly bent yet.
UNBENT = 1 / 3
# One that falls by less has come to rest, as good as.
REST = 0.005


def before_late(curve: Sequence[float]) -> int:
    """The place in a curve from which its last fifth is counted, at least its last value."""
    return min(len(curve) - 2, math.floor((len(curve) - 1) * (1 - TAIL)))


def late_rise(scores: Sequence[float]) -> float:
    """How much higher the best score of the last fifth of the epochs is than the best before."""
    late = before_late(scores) + 1
    return max(scores[late:]) - max(scores[:late])


def late_drop(losses: Sequence[float]) -> float:
    """The relative fall of a loss over the last fifth of the epochs, at least the last one."""
    return relative_drop(losses[before_late(losses)], losses[-1])


def still_falls(losses: Sequence[float]) -> bool:
    """Whether a loss falls at its end: by much, or by little and evenly, because its steps are small.

    A loss that jumps up and down is not falling just because its last jump was down.
    """
    recent = losses[len(losses) // 2 :]
    if late_drop(losses) > STILL:
        return losses[-1] <= (1 + STILL) * min(recent)
    late = before_late(losses)
    if late == 0 or late_drop(losses) <= REST or losses[-1] > min(losses):
        return False
    before, after = (losses[0] - losses[late]) / late, (losses[late] - losses[-1]) / (len(losses) - 1 - late)
    return after >= UNBENT * before > 0


def largest_drop(losses: Sequence[tuple[str, float, float]]) -> tuple[float, str]:
    """Of losses with their name, start and end, the largest relative fall, and a sentence that says how small it is."""
    drop, name, start, end = max((relative_drop(start, end), name, start, end) for name, start, end in losses)
    change = "did not fall" if drop <= 0 else f"fell by only {drop:.1%}"
    return drop, f"the {name} loss {change}: {start:.4g} at the start, {end:.4g} at the end"


def span(curve: Sequence[float]) -> str:
    """What that end of a curve is called."""
    return "fifth" if len(curve) > 5 else "epoch"


def relative_drop(start: float, end: float) -> float:
    """The relative fall of a loss from `start` to `end`."""
    return (start - end) / abs(start) if start else 0.0
