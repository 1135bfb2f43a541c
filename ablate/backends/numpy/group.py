"""Stacked lanes: their weights, losses and update rules, and the networks that differentiate them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from ablate import losses, optimizers
from ablate.backends import Ended, Epoch, Evaluation, Lane, Units
from ablate.backends.numpy.network import Network, Plan
from ablate.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]


# Post D's bounds for lr times gradient at the output layer.
TOO_LARGE, TOO_SMALL = 1.0, 1e-7
WATCHED_ROWS = 50


class Group:
    """K lanes trained in one go: weights `theta` and gradients `(K, P)`, of the data set's dtype.

    `members` are all its lanes by their number in the cohort, `active` those still in training, in the order
    of the leading axis.
    """

    def __init__(self, plan: Plan, dataset: Dataset, members: Mapping[int, Lane], batch_size: int) -> None:
        self.plan, self.members, self.batch_size = plan, members, batch_size
        self.rows = {"train": _flat(dataset.x_train), "test": _flat(dataset.x_test)}
        self.labels = {"train": dataset.y_train, "test": dataset.y_test}
        self.classes = dataset.classes
        self.active = list(members)
        self.retired: dict[int, Array] = {}
        lanes = list(members.values())
        dtype = dataset.x_train.dtype
        self.theta = np.stack([plan.flatten(lane.weights, dtype) for lane in lanes])
        self.output = slice(plan.slots[f"{plan.architecture.output_layer}.weight"].start, None)
        self.stale = np.zeros_like(self.theta)
        self.rate = np.empty_like(self.theta)
        self.rate[:] = np.array([lane.rate for lane in lanes])[:, None]
        self.rate[:, self.output] = np.array([lane.output_rate for lane in lanes])[:, None]
        self.rules = [
            (span, optimizers.build([lane.optimizer for lane in run], self.theta[span].shape, dtype))
            for span, run in _runs(lanes, lambda lane: lane.optimizer.name)
        ]
        self._wire()

    def _wire(self) -> None:
        """Make what depends on which lanes are active."""
        lanes = [self.members[lane] for lane in self.active]
        self.losses = [(span, run[0].loss) for span, run in _runs(lanes, _loss_key)]
        self.is_mean = np.array([lane.reduction == "mean" for lane in lanes])[:, None, None]
        self.partial, self.sum = np.zeros_like(self.theta), np.zeros_like(self.theta)
        self.gradient = self.partial
        self.networks: dict[tuple[str, int, int], Network] = {}

    def train_epoch(self, orders: Sequence[Array], epoch: Epoch) -> None:
        """Train the active lanes on every batch of their orders and write their places in `epoch`."""
        loss = dict.fromkeys(self.active, 0.0)
        right = dict.fromkeys(self.active, 0.0)
        columns = {step: column for column, step in enumerate(epoch.steps)}
        count = len(self.rows["train"])
        stacked = self._stack(orders)
        for step, start in enumerate(range(0, count, self.batch_size)):
            if not self.active:
                return
            indices = stacked[:, start : start + self.batch_size]
            values, correct, failures = self.differentiate(indices)
            for lane, value, hits in zip(self.active, values, correct, strict=True):
                loss[lane] += float(value)
                right[lane] += float(hits)
            if step in columns:
                with np.errstate(all="ignore"):
                    self._log(epoch, columns[step], values / indices.shape[1])
            if failures or not np.isfinite(values).all():
                ended = self._ended(step, values / indices.shape[1], failures)
                epoch.ended.update(ended)
                self.retire(list(ended))
                stacked = self._stack(orders)
            self._update()
        for lane in self.active:
            epoch.loss[lane], epoch.accuracy[lane] = loss[lane] / count, right[lane] / count

    def evaluate(self, rows: int | None, into: Evaluation) -> None:
        """Write the active lanes' places of `into`: on the test set, or the first `rows` of the training set."""
        if not self.active:
            return
        split = "test" if rows is None else "train"
        count = len(self.rows[split]) if rows is None else min(rows, len(self.rows[split]))
        sums = np.zeros((3, len(self.active)))
        for part in _parts(count, self.plan.micro_batch):
            indices = np.arange(part.start, part.stop)[None]
            network = self._forward(split, indices)
            labels = self.labels[split][indices]
            for span, loss in self.losses:
                self._tally(span, loss, network.z[span], labels, sums[:, span], into)
        into.loss[self.active], into.accuracy[self.active], into.confidence[self.active] = sums / count

    def outputs(self) -> Array:
        """The first lane's outputs on the test set, `(N, units)`."""
        parts = []
        for part in _parts(len(self.rows["test"]), self.plan.micro_batch):
            z = self._forward("test", np.arange(part.start, part.stop)[None]).z[:1]
            with np.errstate(all="ignore"):
                parts.append(self.losses[0][1].outputs(z)[0].T.copy())
        return np.concatenate(parts)

    def retire(self, lanes: Sequence[int]) -> None:
        """Take lanes out of training, with the weights they have."""
        if not lanes:
            return
        for lane in lanes:
            self.retired[lane] = self.theta[self.active.index(lane)].copy()
        kept = np.array([row for row, lane in enumerate(self.active) if lane not in lanes], np.intp)
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
        self.theta, self.rate, self.stale = self.theta[kept], self.rate[kept], self.stale[kept]
        self._wire()
        self.gradient = gradient

    def flat_weights(self, lane: int) -> Array:
        """A lane's weights `(P,)` as they are now, a copy."""
        return self.retired[lane].copy() if lane in self.retired else self.theta[self.active.index(lane)].copy()

    def _stack(self, orders: Sequence[Array]) -> Array:
        """The active lanes' orders `(K, N)`; `(1, N)` where they are one and the same, which saves gathering."""
        mine = [orders[lane] for lane in self.active]
        if all(order is mine[0] for order in mine[1:]):
            return np.array(mine[:1])
        return np.stack(mine)

    def _network(self, split: str, indices: Array) -> Network:
        sources, n = indices.shape
        key = (split, sources, n)
        if key not in self.networks:
            self.networks[key] = Network(self.plan, self.theta, self.partial, self.rows[split], sources, n)
        network = self.networks[key]
        network.indices[...] = indices
        return network

    def _forward(self, split: str, indices: Array) -> Network:
        network = self._network(split, indices)
        with np.errstate(all="ignore"):
            network.forward()
        return network

    def differentiate(self, indices: Array) -> tuple[Array, Array, dict[int, str]]:
        """The gradient of a batch `(K or 1, n)` into `self.gradient`.

        Returns each active lane's sum of losses and count of right answers, and what lanes failed of.
        """
        n = indices.shape[1]
        totals = np.zeros((2, len(self.active)))
        failures: dict[int, str] = {}
        divided = self.is_mean & (self.plan.bug != "sum_for_mean")
        scale = np.where(divided, 1 / n, 1.0).astype(self.theta.dtype)
        parts = list(_parts(n, self.plan.micro_batch))
        for number, part in enumerate(parts):
            network = self._forward("train", indices[:, part])
            labels = self.labels["train"][network.indices]
            with np.errstate(all="ignore"):
                self._lose(network, labels, totals, failures)
                network.dz *= scale
                network.backward()
                if number:
                    np.add(self.sum, self.partial, out=self.sum)
                elif len(parts) > 1:
                    np.copyto(self.sum, self.partial)
        self.gradient = self.sum if len(parts) > 1 else self.partial
        self._misread(n)
        return totals[0], totals[1], failures

    def _misread(self, n: int) -> None:
        """Make those of `ablate.bugs` that concern the gradient of a whole batch."""
        if self.plan.bug == "bias_gradient":
            for name, slot in self.plan.slots.items():
                if name.endswith(".bias"):
                    self.gradient[:, slot.span] /= n
        if self.plan.bug == "stale_gradients":
            self.stale += self.gradient
            np.copyto(self.gradient, self.stale)

    def logits(self, indices: Array) -> Array:
        """The logits `(K, C, n)` of rows of the training set, at most a micro-batch."""
        return self._forward("train", indices).z

    def losses_of(self, indices: Array) -> Array:
        """Each active lane's sum of losses on rows of the training set `(K or 1, n)`, in float64."""
        totals = np.zeros(len(self.active))
        for part in _parts(indices.shape[1], self.plan.micro_batch):
            network = self._forward("train", indices[:, part])
            targets = _targets(self.labels["train"][network.indices], network.z.shape[1], network.z.dtype)
            with np.errstate(all="ignore"):
                for span, loss in self.losses:
                    z, y = network.z[span], targets if len(targets) == 1 else targets[span]
                    totals[span] += loss.value(z, loss.outputs(z), y).astype(np.float64).sum(axis=-1)
        return totals

    def _lose(self, network: Network, labels: Array, totals: Array, failures: dict[int, str]) -> None:
        """Loss and its gradient by the logits, one call for each run of lanes with the same loss."""
        targets = _targets(labels, network.z.shape[1], network.z.dtype)
        for span, loss in self.losses:
            z, y = network.z[span], targets if len(targets) == 1 else targets[span]
            p = loss.outputs(z)
            try:
                values, network.dz[span] = loss.value(z, p, y), loss.gradient(z, p, y)
            except losses.LossFailedError as error:
                network.dz[span] = 0
                failures[self.active[span.start]] = str(error)
                continue
            totals[0, span] += values.astype(np.float64).sum(axis=-1)
            mine = labels if len(labels) == 1 else labels[span]
            totals[1, span] += np.count_nonzero(_predict(z) == mine, axis=-1)

    def _tally(self, span: slice, loss: losses.Loss, z: Array, labels: Array, sums: Array, into: Evaluation) -> None:
        """Add a part of an evaluation, for one run of lanes, to the sums of loss, right answers, confidence."""
        targets = _targets(labels, z.shape[1], z.dtype)
        with np.errstate(all="ignore"):
            p = loss.outputs(z)
            try:
                values = loss.value(z, p, targets)
            except losses.LossFailedError as error:
                into.failed[self.active[span.start]] = str(error)
                values = np.full((len(z), z.shape[-1]), np.nan)
            confidence = p.max(axis=-2) if p.shape[-2] > 1 else np.maximum(p, 1 - p)[:, 0]
            predicted = _predict(z)
            sums[0] += values.astype(np.float64).sum(axis=-1)
            sums[1] += np.count_nonzero(predicted == labels, axis=-1)
            sums[2] += confidence.astype(np.float64).sum(axis=-1)
        for lane, row in zip(self.active[span], predicted, strict=True):
            into.predicted[lane] += np.bincount(row, minlength=self.classes)

    def _log(self, epoch: Epoch, column: int, loss: Array) -> None:
        lanes, watched = np.array(self.active), epoch.watched
        every = np.square(self.gradient, dtype=np.float64)
        squares = np.stack([every[:, span].sum(axis=1) for span in self.plan.layer_spans], axis=1)
        norms = np.sqrt(squares)
        epoch.step_loss[lanes, column] = loss
        epoch.gradient_norm[lanes, column] = np.sqrt(squares.sum(axis=1))
        epoch.output_gradient_norm[lanes, column] = norms[:, -1]
        watched.layer_norms[lanes] += norms / len(epoch.steps)
        update = np.abs(self.rate[:, self.output] * self.gradient[:, self.output])
        watched.too_large[lanes] += (update > TOO_LARGE).sum(axis=1)
        watched.too_small[lanes] += ((update < TOO_SMALL) & (update > 0)).sum(axis=1)

    def units(self, into: Units) -> None:
        """Write the active lanes' places of `into`: what the last evaluation of the test set left in the layers."""
        if not self.active:
            return
        part = next(_parts(len(self.rows["test"]), self.plan.micro_batch))
        network = self.networks[("test", 1, part.stop - part.start)]
        dead, saturated = network.dead(WATCHED_ROWS), network.saturated(WATCHED_ROWS)
        if dead:
            into.dead[self.active] = np.concatenate(dead, axis=1).mean(axis=1)
        if saturated:
            into.saturated[self.active] = np.concatenate(saturated, axis=1).mean(axis=1)

    def _ended(self, step: int, loss: Array, failures: Mapping[int, str]) -> dict[int, Ended]:
        ended = {lane: Ended(step, why, failed=True) for lane, why in failures.items()}
        for lane, value in zip(self.active, loss, strict=True):
            if lane not in ended and not np.isfinite(value):
                ended[lane] = Ended(step, f"the loss is {value}", failed=False)
        return ended

    def _update(self) -> None:
        with np.errstate(all="ignore"):
            for span, rule in self.rules:
                step = rule.step(self.gradient[span])
                self.theta[span] -= self.rate[span] * step


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _loss_key(lane: Lane) -> object:
    # A user's loss may fail, and then only its own lane: so each stands alone.
    return id(lane) if isinstance(lane.loss, losses.Custom) else lane.loss_key


def _runs(lanes: Sequence[Lane], key: Callable[[Lane], object]) -> Iterator[tuple[slice, list[Lane]]]:
    """Neighbouring lanes with equal keys, and their places on the leading axis."""
    start = 0
    for _, run in groupby(lanes, key):
        members = list(run)
        yield slice(start, start + len(members)), members
        start += len(members)


def _parts(count: int, most: int) -> Iterator[slice]:
    """Split `count` samples into as few nearly equal parts of at most `most` as there can be."""
    edges = np.linspace(0, count, -(-count // most) + 1).round().astype(int)
    for start, stop in pairwise(edges):
        yield slice(int(start), int(stop))


def _targets(labels: Array, units: int, dtype: np.dtype[Any]) -> Array:
    """One-hot targets `(K, units, n)` of labels `(K, n)`; for a single unit the label itself."""
    if units == 1:
        return labels[:, None, :].astype(dtype)
    return (labels[:, None, :] == np.arange(units)[:, None]).astype(dtype)


def _predict(z: Array) -> Array:
    """The predicted class `(K, n)`: the first largest logit, or for a single unit whether p > 1/2."""
    return np.argmax(z, axis=-2) if z.shape[-2] > 1 else (z[:, 0] > 0).astype(np.intp)
