"""An architecture as the NumPy engine computes it: the operations of one batch size, wired together."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ablate.backends.numpy import operations
from ablate.backends.numpy.layout import Layout, is_whole
from ablate.problem.dropout import Uniform
from ablate.problem.layers import Activate, AvgPool, Conv, Dense, Divide, Dropout, Layer, Pool, Windows
from ablate.problem.mistakes import Mistake
from ablate.problem.models import Stage

Array = np.ndarray[Any, np.dtype[Any]]

# The layers whose operation writes into the array it reads: forward, or the gradient backward.
IN_PLACE = (Activate, Divide, Pool)


class Network:
    """The operations of one batch size: K lanes, n samples; the lanes share their inputs or have one set each.

    `indices` `(K or 1, n)` are the rows to read; fill them in before `forward`. `z` `(K, units, n)` are the logits.
    `draws` has one source of dropout's random numbers for each lane; lanes that would draw the same share theirs.
    Fill in `dz` before `backward`, which writes `gradient` `(K, P)`. If the mistake leaves out a layer's derivative,
    its operation is left out of `backward`.
    """

    def __init__(
        self,
        layout: Layout,
        mistake: Mistake,
        theta: Array,
        gradient: Array,
        rows: Array,
        sources: int,
        n: int,
        draws: Sequence[Uniform],
    ) -> None:
        self.layout, self.draws = layout, draws
        self.dropouts: list[operations.Dropout] = []
        self.indices = np.zeros((sources, n), np.intp)
        self.gradient, self.mistake = gradient, mistake
        # Each operation, and the layer if applying that layer's derivative is all that its `backward` does.
        self.operations: list[tuple[operations.Operation, Layer | None]] = []
        self._views = {name: (place.view(theta), place.view(gradient)) for name, place in layout.placements.items()}
        if layout.takes_images and layout.source is not None:
            self._append(operations.GatherImages(rows, self.indices, layout.source))
        else:
            self._append(operations.Gather(rows, self.indices))
        pending: list[Stage] = []
        for stage, order in zip(layout.stages, layout.orders, strict=True):
            if pending and not isinstance(stage.layer, Windows):
                self._add_bias(pending.pop())
            self._add(stage, order)
            if isinstance(stage.layer, Conv) and not is_whole(stage):
                pending.append(stage)
        for stage in pending:
            self._add_bias(stage)
        z = self._y
        self.z = z
        self.dz = np.zeros((theta.shape[0], *z.shape[1:]), theta.dtype)
        self.forwards: list[Callable[[], None]] = [operation.forward for operation, _ in self.operations]
        self.backwards = self._connect()

    @property
    def _y(self) -> Array:
        """The output of the last operation so far."""
        return self.operations[-1][0].y

    def _append(self, operation: operations.Operation, layer: Layer | None = None) -> None:
        self.operations.append((operation, layer))

    def _add(self, stage: Stage, order: list[int]) -> None:
        """Append a stage's operation; a convolution's bias comes later, after any pooling."""
        last = self.operations[-1][0]
        if isinstance(stage.layer, IN_PLACE) and isinstance(last, operations.Activate):
            # The backward pass needs the activation's output: what follows in place works on a copy.
            self._append(operations.Copy(last.y))
        x = self._y
        match stage.layer:
            case Conv() if not is_whole(stage):
                self._add_conv(stage.layer, self._views[f"{stage.name}.weight"], order)
            case Conv() | Dense():
                weight, weight_gradient = self._views[f"{stage.name}.weight"]
                bias, bias_gradient = self._views[f"{stage.name}.bias"]
                kind = operations.Dense if isinstance(stage.layer, Dense) else operations.WholeConv
                self._append(kind(x, weight, bias, (weight_gradient, bias_gradient)))
            case Pool(size):
                self._append(operations.Pool(x, size))
            case AvgPool(size):
                self._append(operations.AvgPool(x, size))
            case Dropout(rate):
                places = self.layout.unit_places(stage, order)
                self.dropouts.append(operations.Dropout(x, rate, len(self.dropouts), places, self.draws))
                self._append(self.dropouts[-1])
            case Divide(divisor):
                self._append(operations.Divide(x, divisor), stage.layer)
            case Activate(activation):
                self._append(operations.Activate(x, activation), stage.layer)
            case _:
                raise NotImplementedError(f"{stage.layer}: the NumPy engine has no operation for this layer")

    def _add_conv(self, layer: Conv, weights: tuple[Array, Array], order: list[int]) -> None:
        if layer.padding:
            self._append(operations.Pad(self._y, layer.padding))
        if layer.stride == 1:
            self._append(operations.Conv(self._y, *weights, layer.kernel, order))
        else:
            self._append(operations.StridedConv(self._y, *weights, layer.kernel, layer.stride))

    def _add_bias(self, stage: Stage) -> None:
        self._append(operations.Bias(self._y, *self._views[f"{stage.name}.bias"]))

    def _connect(self) -> list[Callable[[], None]]:
        first = next(i for i, (each, _) in enumerate(self.operations) if isinstance(each, operations.Weighted))
        backwards: list[Callable[[], None]] = []
        d = self.dz
        for operation, layer in reversed(self.operations[first + 1 :]):
            d = operation.connect(d)
            if layer is None or self.mistake.has_derivative(layer):
                backwards.append(operation.backward)
        lowest = self.operations[first][0]
        assert isinstance(lowest, operations.Weighted)
        lowest.connect_parameters(d)
        return [*backwards, lowest.backward_parameters]

    def forward(self, drawn_at: tuple[int, int] | None = None) -> None:
        """`drawn_at`, in training: the step and the place of the first sample in its batch; dropout draws by them."""
        for dropout in self.dropouts:
            dropout.draw(drawn_at)
        for run in self.forwards:
            run()

    def backward(self) -> None:
        for run in self.backwards:
            run()

    def _activations(self) -> list[operations.Activate]:
        return [each for each, _ in self.operations if isinstance(each, operations.Activate)]

    def dead(self) -> list[Array]:
        """For each activation that can die, which of its units `(K, D)` (of images: maps) are 0 on all samples."""
        mortal = [each.y for each in self._activations() if each.activation.can_die]
        return [np.asarray(~(y > 0).any(axis=(1, 2, 4, 5) if y.ndim == 6 else 2)) for y in mortal]

    def saturated(self) -> list[Array]:
        """For each bounded activation, which of its values are near a bound `(K, ...)`."""
        bounded = [(each.y, reach) for each in self._activations() if (reach := each.activation.reach) is not None]
        parts = [np.abs(y - middle) > distance for y, (middle, distance) in bounded]
        return [part.reshape(len(part), -1) for part in parts]
