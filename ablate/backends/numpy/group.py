"""Stacked lanes: their weights, losses and update rules, and the networks that differentiate them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ablate.backends.engine import WATCHED_ROWS, Ended, Epoch, Evaluation, Lane, Rates, Units
from ablate.backends.numpy.layout import Layout
from ablate.backends.numpy.network import Network
from ablate.backends.process_group import ProcessGroup
from ablate.problem.data.dataset import Dataset
from ablate.problem.dropout import Uniform
from ablate.problem.losses import LossFailedError
from ablate.problem.optimizers import Rule

Array = np.ndarray[Any, np.dtype[Any]]


# No warnings: numbers that are not finite are looked for where they matter.
_QUIETLY = np.errstate(all="ignore")
# Bounds for lr times gradient at the output layer, those of docs/posts/digit_mlp.md.
TOO_LARGE, TOO_SMALL = 1.0, 1e-7


class Group:
    """K lanes stacked and trained at once: weights `theta` and gradients `(K, P)`, of the data set's dtype.

    `members` are all its lanes by their number in the cohort, `active` those still in training, in the order
    of the leading axis.
    """

    def __init__(
        self, layout: Layout, dataset: Dataset, members: Mapping[int, Lane], batch_size: int, processes: ProcessGroup
    ) -> None:
        self.layout, self.members, self.batch_size, self.processes = layout, members, batch_size, processes
        self.rows = {"train": _flat(dataset.x_train), "test": _flat(dataset.x_test)}
        self.known = {"train": dataset.y_train, "test": dataset.y_test}
        self.task, self.scorers = dataset.task, dataset.scorers
        self.evaluated: dict[tuple[str, int, int], tuple[Array, Array, Array]] = {}
        self.active = list(members)
        self.retired: dict[int, Array] = {}
        lanes = list(members.values())
        dtype = dataset.x_train.dtype
        self.theta = np.stack([layout.flatten(lane.weights, dtype) for lane in lanes])
        self.output = slice(layout.placements[f"{layout.architecture.output_layer}.weight"].start, None)
        self.mistake = lanes[0].mistake
        self.before = np.zeros_like(self.theta)
        self.step = 0
        by_key = {lane.dropout_key: Uniform(lane.dropout_key) for lane in lanes if layout.drops}
        self.draws = {number: by_key[lane.dropout_key] for number, lane in members.items() if layout.drops}
        self.rate = np.empty_like(self.theta)
        self.rates, self.rows_of = Rates(lanes), {lane: row for row, lane in enumerate(members)}
        self._set_rates(self.rates.first)
        # The active lanes' rates at the steps of an epoch, unless all are constant.
        self.scheduled: Array | None = None
        self.rules = [
            (span, Rule([each.optimizer for each in run], [each.weight_decay for each in run], self.theta[span]))
            for span, run in _runs(lanes, lambda lane: lane.optimizer.parts)
        ]
        self._wire()

    def _wire(self) -> None:
        """Build everything that depends on which lanes are active."""
        lanes = [self.members[lane] for lane in self.active]
        self.places = np.array(self.active, np.intp)
        self.objectives = [(span, run[0].objective) for span, run in _runs(lanes, lambda lane: lane.objective_key)]
        self.reductions = [lane.loss.reduction for lane in lanes]
        partial = len(self.layout.partial_sums(self.batch_size))
        self.gradient = np.zeros_like(self.theta)
        self.sums = np.zeros((partial, *self.theta.shape), self.theta.dtype)
        self.scales: dict[int, Array] = {}
        self.networks: dict[tuple[str, int, int], Network] = {}

    @_QUIETLY
    def train_epoch(self, orders: Sequence[Array], epoch: Epoch) -> None:
        """Train the active lanes on every batch of their orders, and fill in their elements of `epoch`."""
        columns = {step: column for column, step in enumerate(epoch.steps)}
        count = len(self.rows["train"])
        stacked = self._stack(orders)
        sums = np.zeros((1 + self.scorers["train"].while_trained, len(self.active)))
        self._schedule(-(-count // self.batch_size))
        for step, start in enumerate(range(0, count, self.batch_size)):
            if not self.active:
                break
            if self.scheduled is not None:
                self._set_rates(self.scheduled[:, step])
            indices = stacked[:, start : start + self.batch_size]
            totals, failures = self.differentiate(indices)
            sums += totals
            values = totals[0]
            if step in columns:
                self._log(epoch, columns[step], values / indices.shape[1])
            if failures or not np.isfinite(values).all():
                ended = self._ended(step, values / indices.shape[1], failures)
                epoch.ended.update(ended)
                sums = sums[:, self.retire(list(ended))]
                stacked = self._stack(orders)
            self._update()
        epoch.loss[self.places], epoch.tallies[self.places] = sums[0] / count, sums[1:].T

    @_QUIETLY
    def evaluate(self, split: str, into: Evaluation) -> None:
        """Fill in the active lanes' elements of `into`: on the first `into.rows` of the training or the test set."""
        if not self.active:
            return
        partial = self.layout.partial_sums(into.rows)
        sums = np.zeros((len(partial), 1 + self.scorers[split].when_tested, len(self.active)))
        for number in self.processes.shares(len(partial)):
            for part in partial[number]:
                self._tally(split, part, sums[number], into.failed)
        self.processes.all_gather([sums])
        total = sums.sum(axis=0)
        into.loss[self.places], into.tallies[self.places] = total[0] / into.rows, total[1:].T

    @_QUIETLY
    def outputs(self) -> Array:
        """The first lane's outputs on the test set, `(N, units)`."""
        outputs = []
        for part in self.layout.micro_batches(len(self.rows["test"])):
            z = self._forward("test", np.arange(part.start, part.stop)[None]).z[:1]
            outputs.append(self.objectives[0][1].outputs(z)[0].T.copy())
        return np.concatenate(outputs)

    def retire(self, lanes: Sequence[int]) -> Array:
        """Take lanes out of training and keep their weights; returns the rows of those that stay."""
        for lane in lanes:
            self.retired[lane] = self.theta[self.active.index(lane)].copy()
        kept = np.array([row for row, lane in enumerate(self.active) if lane not in lanes], np.intp)
        if len(kept) == len(self.active):
            return kept
        rules = []
        for span, rule in self.rules:
            mine = kept[(kept >= span.start) & (kept < span.stop)]
            if len(mine):
                rule.keep(mine - span.start)
                start = int(np.searchsorted(kept, span.start))
                rules.append((slice(start, start + len(mine)), rule))
        self.rules = rules
        self.active = [self.active[row] for row in kept]
        gradient = self.gradient[kept]
        self.theta, self.rate, self.before = self.theta[kept], self.rate[kept], self.before[kept]
        self.scheduled = None if self.scheduled is None else self.scheduled[kept]
        self._wire()
        np.copyto(self.gradient, gradient)
        return kept

    def flat_weights(self, lane: int) -> Array:
        """A copy of a lane's current weights `(P,)`."""
        return self.retired[lane].copy() if lane in self.retired else self.theta[self.active.index(lane)].copy()

    def _stack(self, orders: Sequence[Array]) -> Array:
        """The active lanes' orders `(K, N)`; `(1, N)` if they are all the same, which saves gathering."""
        mine = [orders[lane] for lane in self.active]
        if all(order is mine[0] for order in mine[1:]):
            return np.array(mine[:1])
        return np.stack(mine)

    def _forward(self, split: str, indices: Array, drawn_at: tuple[int, int] | None = None) -> Network:
        """The network for rows `(K or 1, n)` of the training or test set, run forward; `drawn_at` as in `Network`."""
        sources, n = indices.shape
        network = self.networks.get((split, sources, n))
        if network is None:
            draws = [self.draws[lane] for lane in self.active if self.layout.drops]
            network = Network(self.layout, self.mistake, self.theta, self.gradient, self.rows[split], sources, n, draws)
            self.networks[(split, sources, n)] = network
        np.copyto(network.indices, indices)
        network.forward(drawn_at)
        return network

    @_QUIETLY
    def differentiate(self, indices: Array) -> tuple[Array, dict[int, str]]:
        """The gradient of a batch `(K or 1, n)` into `self.gradient`.

        Returns each active lane's sum of losses and below it the tallies, `(1 + while_trained, K)`, and why lanes
        failed.
        """
        n = indices.shape[1]
        partial = self.layout.partial_sums(n)
        # A batch of one partial sum has one micro-batch, which is its own sum.
        sums = self.sums[: len(partial)] if len(partial) > 1 else self.gradient[None]
        totals = np.zeros((len(partial), 1 + self.scorers["train"].while_trained, len(self.active)))
        failures: dict[int, str] = {}
        for number in self.processes.shares(len(partial)):
            for part in partial[number]:
                network = self._forward("train", indices[:, part], (self.step, part.start))
                self._lose(network, self.task.truth(self.known["train"], network.indices), totals[number], failures)
                network.dz *= self._scale(n)
                network.backward()
                if part is not partial[number][0]:
                    np.add(sums[number], self.gradient, out=sums[number])
                elif len(partial) > 1:
                    np.copyto(sums[number], self.gradient)
        self.processes.all_gather([sums, totals])
        if len(partial) > 1:
            _add_up(sums, self.gradient)
        self.mistake.batch_gradient(self.gradient, self.before, self.layout.bias_spans, n)
        if self.mistake.remembers_gradient:
            np.copyto(self.before, self.gradient)
        return totals.sum(axis=0), failures

    def _scale(self, n: int) -> Array:
        """The factor of a sample's gradient in a batch of n, `(K, 1, 1)`."""
        if n not in self.scales:
            scales = [self.mistake.scale(reduction, n) for reduction in self.reductions]
            self.scales[n] = np.array(scales, self.theta.dtype)[:, None, None]
        return self.scales[n]

    @_QUIETLY
    def logits(self, indices: Array) -> Array:
        """The logits `(K, C, n)` of rows of the training set, at most one micro-batch."""
        return self._forward("train", indices).z

    def targets(self, indices: Array) -> Array:
        """Their targets `(K or 1, C, n)`, as a loss is given them."""
        truth = self.task.truth(self.known["train"], indices)
        return self.task.targets(truth, self.layout.architecture.units, self.theta.dtype)

    @_QUIETLY
    def losses_of(self, indices: Array) -> Array:
        """Each active lane's sum of losses on rows of the training set `(K or 1, n)`, in float64, as in training."""
        totals = np.zeros(len(self.active))
        for part in self.layout.micro_batches(indices.shape[1]):
            network = self._forward("train", indices[:, part], (self.step, part.start))
            targets = self.targets(network.indices)
            for span, objective in self.objectives:
                z, y = network.z[span], targets if len(targets) == 1 else targets[span]
                totals[span] += objective.value(z, objective.outputs(z), y).sum(axis=-1, dtype=np.float64)
        return totals

    def _lose(self, network: Network, truth: Array, totals: Array, failures: dict[int, str]) -> None:
        """Loss and its gradient with respect to the logits, one call for each run of lanes with the same objective."""
        targets, scorer = self.task.targets(truth, network.z.shape[1], network.z.dtype), self.scorers["train"]
        for span, objective in self.objectives:
            z, y = network.z[span], targets if len(targets) == 1 else targets[span]
            p = objective.outputs(z)
            try:
                values, network.dz[span] = objective.value(z, p, y), objective.gradient(z, p, y)
            except LossFailedError as error:
                network.dz[span] = 0
                failures[self.active[span.start]] = str(error)
                continue
            totals[0, span] += values.sum(axis=-1, dtype=np.float64)
            totals[1:, span] += scorer.trained(z, p, truth if len(truth) == 1 else truth[span])

    def _tally(self, split: str, part: slice, sums: Array, failed: dict[int, str]) -> None:
        """Add rows to the sums of losses and tallies `(1 + when_tested, K)`."""
        indices, truth, targets = self._part(split, part)
        z = self._forward(split, indices).z
        for span, objective in self.objectives:
            p = objective.outputs(z[span])
            try:
                values = objective.value(z[span], p, targets)
            except LossFailedError as error:
                failed[self.active[span.start]] = str(error)
                values = np.full((len(p), z.shape[-1]), np.nan)
            sums[0, span] += values.sum(axis=-1, dtype=np.float64)
            sums[1:, span] += self.scorers[split].tested(z[span], p, truth)

    def _part(self, split: str, part: slice) -> tuple[Array, Array, Array]:
        """Row numbers `(1, n)`, true labels or targets `(1, ..., n)`, and what a loss is given, cached."""
        key = (split, part.start, part.stop)
        if key not in self.evaluated:
            indices = np.arange(part.start, part.stop)[None]
            truth = self.task.truth(self.known[split], indices)
            targets = self.task.targets(truth, self.layout.architecture.units, self.theta.dtype)
            self.evaluated[key] = indices, truth, targets
        return self.evaluated[key]

    def _log(self, epoch: Epoch, column: int, loss: Array) -> None:
        lanes, watched = self.places, epoch.watched
        every = np.square(self.gradient, dtype=np.float64)
        squares = np.stack([every[:, span].sum(axis=1) for span in self.layout.layer_spans], axis=1)
        norms = np.sqrt(squares)
        epoch.step_loss[lanes, column] = loss
        epoch.gradient_norm[lanes, column] = np.sqrt(squares.sum(axis=1))
        epoch.output_gradient_norm[lanes, column] = norms[:, -1]
        watched.layer_norms[lanes] += norms / len(epoch.steps)
        update = np.abs(self.rate[:, self.output] * self.gradient[:, self.output])
        watched.too_large[lanes] += (update > TOO_LARGE).sum(axis=1)
        watched.too_small[lanes] += ((update < TOO_SMALL) & (update > 0)).sum(axis=1)

    @_QUIETLY
    def units(self, into: Units) -> None:
        """Fill in the active lanes' elements of `into`, from the first rows of the test set."""
        if not self.active:
            return
        network = self._forward("test", np.arange(min(WATCHED_ROWS, len(self.rows["test"])))[None])
        dead, saturated = network.dead(), network.saturated()
        if dead:
            into.dead[self.places] = np.concatenate(dead, axis=1).mean(axis=1)
        if saturated:
            into.saturated[self.places] = np.concatenate(saturated, axis=1).mean(axis=1)

    def _ended(self, step: int, loss: Array, failures: Mapping[int, str]) -> dict[int, Ended]:
        ended = {lane: Ended(step, why, failed=True) for lane, why in failures.items()}
        for lane, value in zip(self.active, loss, strict=True):
            if lane not in ended and not np.isfinite(value):
                ended[lane] = Ended(step, f"the loss is {value}", failed=False)
        return ended

    def _schedule(self, steps: int) -> None:
        """Look up the rates of the next epoch, unless all are constant."""
        if not self.rates.are_constant:
            self.scheduled = self.rates.table(self.step, steps)[[self.rows_of[lane] for lane in self.active]]

    def _set_rates(self, rates: Array) -> None:
        """Set the active lanes' rates `(K, 2)`: of the hidden layers, of the output layer."""
        self.rate[:] = rates[:, :1]
        self.rate[:, self.output] = rates[:, 1:]

    def _update(self) -> None:
        self.step += 1
        for span, rule in self.rules:
            step = rule.step(self.gradient[span], self.theta[span])
            self.theta[span] -= self.rate[span] * step


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _add_up(parts: Array, into: Array) -> None:
    """The sum over the first axis, in its order; NumPy's own would copy the first part before it adds."""
    np.add(parts[0], parts[1], out=into)
    for part in parts[2:]:
        np.add(into, part, out=into)


def _runs(lanes: Sequence[Lane], key: Callable[[Lane], object]) -> Iterator[tuple[slice, list[Lane]]]:
    """Runs of neighbouring lanes with equal keys, and their span on the leading axis."""
    start = 0
    for _, run in groupby(lanes, key):
        members = list(run)
        yield slice(start, start + len(members)), members
        start += len(members)
