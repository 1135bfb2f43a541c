"""Whether a peer computes the same as ours: the same loss before an update and after it, and the same weights.

Both start with the same weights and take the first batch of the training set as their only one. Ours is asked as any
user could: it trains on these rows alone, and its local records are read. One update, since a later one may meet two
values in a pool, or one near 0, that rounding orders differently here and there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.records.trial_folder import TrialFolder
from benchmarks import work
from benchmarks.work import Work

if TYPE_CHECKING:
    from benchmarks.peers import Peer

Array = np.ndarray[Any, np.dtype[Any]]

# A bias starts at 0: after one update all of it is a sum that rounding touches.
LOSSES_WITHIN, WEIGHTS_WITHIN = 1e-5, 1e-4


_LOSS = "the loss"


class DisagreementError(Exception):
    """A peer computes something else, so that its time means nothing."""


def first_batch(whole: Work, epochs: int = 1) -> Work:
    """The same trials on the first batch of their data, so that an epoch is one update."""
    limit = [f"data.train_limit={whole.batch}"] if whole.batch < whole.rows else []
    return Work(*whole.words, *limit, f"epochs={epochs}", "log_every=1", lanes=len(whole.trials))


def check(whole: Work, peers: Mapping[str, Callable[[Work], Peer]]) -> dict[str, float]:
    """The largest relative difference of losses and weights of each peer. Raises DisagreementError."""
    once, twice = first_batch(whole), first_batch(whole, 2)
    weights, losses = ours(once)[1], ours(twice)[0]
    differences = {}
    for label, make in peers.items():
        peer = make(once)
        found = {_LOSS: difference(losses[:, peer.lanes], np.array(peer.updates(2)[0]))}
        for lane, theirs in zip(peer.lanes, peer.updates(1)[1], strict=True):
            for name, weight in weights[lane].items():
                found[name] = max(found.get(name, 0.0), difference(weight, theirs[name]))
        for name, figure in found.items():
            if not figure <= (LOSSES_WITHIN if name == _LOSS else WEIGHTS_WITHIN):
                raise DisagreementError(f"{label} does not compute what ours does: {name} differs by {figure:.1e}")
        differences[label] = max(found.values())
    return differences


def difference(one: Array, other: Array) -> float:
    """The largest difference of two tensors, relative to their largest number."""
    return float(np.abs(one - other).max() / np.abs(one).max())


def ours(small: Work) -> tuple[Array, list[dict[str, Array]]]:
    """Our losses before every update, by update and lane, and our last weights by lane."""
    with small.fresh() as made:
        work.chunk(made)
        folders = [made.folder.trial(trial.number) for trial in made.trials]
        weights = [folder.read_final_weights() for folder in folders]
        return np.array([_losses(folder) for folder in folders]).T, weights


def _losses(folder: TrialFolder) -> list[float]:
    return [record["step/loss"] for record in folder.read_metrics() if "step/loss" in record]
