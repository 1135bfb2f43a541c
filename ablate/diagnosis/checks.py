"""The checks before training: is the gradient as coded the derivative of the loss, and does a step descend?

All in float64, on a few training samples, by central differences of the loss alone: what is measured shares
nothing with the backward pass. Whether a gradient is right does not depend on where one looks, so the checks
look where nothing is saturated, dead or overflowing; the trial's own start is tried once, for numbers that are
not finite. `python -m ablate.check key=value ...` prints them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ablate.backends import cuda
from ablate.backends.engine import Lane
from ablate.backends.numpy import NumpyEngine
from ablate.backends.numpy.probe import Probe
from ablate.config.schema import BuiltinLoss, Init, Settings
from ablate.problem import losses, models
from ablate.problem import mistakes as bugs
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture
from ablate.training import loop as train

Array = np.ndarray[Any, np.dtype[Any]]
Cause = tuple[str, str]

# Enough to see every kind of mistake on every model, and few enough for a tenth of a second on LeNet-5
# (`python -m benchmarks.checks`).
SAMPLES = 5
MOST_MADE_UP = 32
COORDINATES = 16
DIRECTIONS = 3
DRAWS = 5
# The first step is the most precise; a smaller one misses kinks that it hits.
STEPS = (1e-6, 1e-7, 1e-8)
KINK = 1e-3
UPDATES = 3
# So far apart, of a tensor's largest weight, may float64 and another order of additions bring them.
ROUNDING = 1e-7
TOLERANCE = 1e-4
MATCH = 1e-4
CHANGE = 1e-4
LOGITS = "logits"


@dataclass(frozen=True)
class Entry:
    """One coordinate: the gradient as coded beside the central difference."""

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float


@dataclass(frozen=True)
class TensorCheck:
    """A tensor's sampled coordinates. `error` is the largest difference over the tensor's largest gradient;
    `cosine` that of the raw step and the negative numerical gradient, None where either is zero."""

    name: str
    entries: tuple[Entry, ...]
    error: float
    cosine: float | None


@dataclass(frozen=True)
class Check:
    """What was found. `gradient_error` is over all tensors, `descent_cosine` over the weights; `guess` names a
    likely cause.

    The tensor `logits` is the loss by itself, without the network: its gradient at made-up logits, of sample and
    class. `predicted` and `actual` are the change of the loss for one small raw step: by the numerical slope along
    it, and as measured. A configuration without a true gradient has `left_out` and no figures.
    """

    tensors: tuple[TensorCheck, ...] = ()
    gradient_error: float | None = None
    descent_cosine: float | None = None
    predicted: float | None = None
    actual: float | None = None
    guess: str | None = None
    advice: str | None = None
    left_out: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether nothing was found."""
        return self.guess is None

    @property
    def worst(self) -> Entry | None:
        """The coordinate where analytic and numeric differ most, in units of its tensor's largest gradient."""
        if not self.tensors:
            return None
        tensor = max(self.tensors, key=lambda tensor: tensor.error)
        return max(tensor.entries, key=lambda entry: abs(entry.analytic - entry.numeric), default=None)


def key(settings: Settings) -> str:
    """Equal for trials whose checks are the same: model, loss, signs, bug, data, the start's law and precision, and who
    computes."""
    named = {"model", "loss", "update_sign", "residual", "bug", "data", "init", "dtype", "backend", "device"}
    if settings.backend == "cuda":
        named.add("optimizer")  # its kernels are tried too
    same = settings.model_dump_json(include=named)
    return same if settings.loss.name != "custom" else same + str(settings.loss)


def check(settings: Settings, dataset: Dataset, seed: int = 0) -> Check:
    """Check a trial's gradient and the direction of its step, on the first training samples of several classes.

    `seed` draws where to look; the trial's own has no part in it, so that trials that differ in their seed have
    the same check. Raises ConfigError where the network does not fit the data. A loss that raises is told
    as what was found.
    """
    settings = settings.model_copy(update={"seed": seed})
    network = train.architecture(settings, dataset)
    if settings.model.logits == "straight_through_relu":
        return Check(
            left_out="model.logits=straight_through_relu has no true gradient: forward and backward differ on purpose"
        )
    loss = losses.build(settings.loss, settings.output)
    try:
        if isinstance(loss, losses.Custom) and not loss.is_double(network.units):
            return Check(left_out="the loss computes in less than float64, too coarse for central differences")
        return _examine(settings, network, _few(bugs.labels(settings.bug, dataset)))
    except losses.LossFailedError as error:
        return Check(guess="loss fails", advice=f"the loss cannot be computed: {error}")


def check_all(trials: Sequence[Settings], dataset: Dataset) -> list[Check | None]:
    """The checks of trials on one data set, each distinct one made once; None where `check=false`."""
    made = {key(settings): check(settings, dataset) for settings in _distinct(trials)}
    return [made[key(settings)] if settings.check else None for settings in trials]


def _distinct(trials: Sequence[Settings]) -> Sequence[Settings]:
    return list({key(settings): settings for settings in trials if settings.check}.values())


def _few(dataset: Dataset) -> Dataset:
    """A handful of training samples, of as many classes as there are among them."""
    firsts = np.unique(dataset.y_train[:200], return_index=True)[1]
    others = np.setdiff1d(np.arange(min(len(dataset.y_train), 200)), firsts)
    rows = np.concatenate([np.sort(firsts), others])[:SAMPLES]
    # An odd number: where two classes are equally many, a bias's gradient may cancel, and nothing is seen of it.
    rows = np.sort(rows[:-1] if len(rows) > 2 and len(rows) % 2 == 0 else rows)
    x, y = dataset.x_train[rows], dataset.y_train[rows]
    return replace(dataset, x_train=x, y_train=y, x_test=x, y_test=y)


def _in_float64(few: Dataset) -> Dataset:
    x = few.x_train.astype(np.float64)
    return replace(few, x_train=x, x_test=x)


def _gentle(network: Architecture, few: Dataset, seed: int) -> dict[str, Array]:
    """Weights at which nothing is extreme: Glorot's, over the data's scale and times what the model divides by."""
    weights = models.initial_weights(network, Init(name="glorot_uniform", bias="same"), np.random.default_rng(seed))
    weights[next(iter(weights))] /= float(np.sqrt(np.mean(np.square(few.x_train)))) or 1.0
    for stage, after in pairwise(network.stages):
        if stage.name and isinstance(after.layer, models.Divide):
            weights[f"{stage.name}.weight"] *= after.layer.divisor
    return weights


def _awake(network: Architecture, few: Dataset, own: Lane, seed: int) -> Lane:
    """The lane at gentle weights where no tensor's gradient is 0 throughout, if a few draws find such."""
    lane = own
    for attempt in range(DRAWS):
        lane = replace(own, weights=_gentle(network, few, seed + attempt))
        if all(tensor.any() for tensor in Probe(network, few, lane).gradient().values()):
            break
    return lane


def _ones(weights: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.ones(tensor.shape) for name, tensor in weights.items()}


def _examine(settings: Settings, network: Architecture, few: Dataset) -> Check:
    own = train.lane(settings, network)
    overflow = _not_finite(Probe(network, few, own), settings)
    few = _in_float64(few)
    lane = _awake(network, few, own, settings.seed)
    probe = Probe(network, few, lane)
    kernels = _kernels(settings, network, few, lane)
    start, coded, again = probe.loss(), kernels.gradient(), kernels.gradient()
    if not _is_finite(start, coded):
        cause = (
            overflow
            or _of_kernels(settings, probe, coded)
            or ("not finite", "the loss or its gradient is not a finite number")
        )
        return Check(guess=cause[0], advice=cause[1])
    if probe.loss() != start:
        return Check(
            guess="not repeatable", advice="the same samples give another loss the second time: it keeps a state"
        )
    if not any(tensor.any() for tensor in coded.values()) and probe.loss_along(_ones(coded), CHANGE) == start:
        return Check(left_out="neither loss nor gradient moves with the weights: nothing can be said")
    sign = _sign(settings)
    by_loss = _Loss.at_made_up_logits(lane.loss, network.units, settings)
    tensors = [_tensor(probe, name, sign, coded[name], start, settings.seed) for name in coded]
    cosine = _cosine([entry for tensor in tensors for entry in tensor.entries], sign)
    predicted, actual, along = _one_step(probe, coded, sign, start, settings.seed)
    tensors.append(by_loss.tensor(sign))
    error = max(along, *(tensor.error for tensor in tensors))
    looked_for = [
        _of_kernels(settings, probe, coded) or _of_steps(settings, network, few, lane),
        _not_repeatable(coded, again),
        by_loss.cause(settings),
        _of_backward(network, few, lane, coded) if error > TOLERANCE else None,
        overflow,
    ]
    causes = [cause for cause in looked_for if cause is not None]
    if error > TOLERANCE and not causes:
        causes = [("wrong derivative", "the gradient is not the loss's derivative: compare the worst entry by hand")]
    if sign > 0 and not causes and cosine is not None and cosine < -0.5:
        # A loss so small that its gradient is within rounding still has a direction.
        causes = [(WRONG_SIGN, f"{_NEGATIVE}: change it")]
    guess, advice = _told(causes, settings, sign)
    return Check(tuple(tensors), error, cosine, predicted, actual, guess, advice)


def _kernels(settings: Settings, network: Architecture, few: Dataset, lane: Lane) -> Probe | cuda.Probe:
    """Whose gradient it is that trains: that of the trial's backend."""
    if settings.backend == "numpy":
        return Probe(network, few, lane)
    return cuda.Probe(network, few, lane, cuda.device(settings.device))


def _told(causes: Sequence[Cause], settings: Settings, sign: int) -> tuple[str | None, str | None]:
    """The first cause names what is wrong, the others are added to its advice; an uphill update comes before all."""
    if sign < 0:
        remedy = (
            "update_sign=minus or residual=y-p" if settings.residual == "p-y" else "residual=p-y or update_sign=plus"
        )
        climbs = WRONG_SIGN, f"the update adds the gradient, so every step climbs: use {remedy}"
        if causes and causes[0][0] == WRONG_SIGN:
            both = (
                "the gradient has the wrong sign and the update adds it: the two mistakes cancel, and a step descends"
            )
            climbs, causes = (WRONG_SIGN, f"{both}; turn both, or nobody will trust the code"), causes[1:]
        causes = [climbs, *causes]
    if not causes:
        return None, None
    return causes[0][0], "; besides, ".join(advice for _, advice in causes)


WRONG_SIGN = "wrong sign"


def _sign(settings: Settings) -> int:
    """+1 where the update as configured follows the negative of the gradient, -1 where it adds it."""
    return (1 if settings.update_sign == "minus" else -1) * (1 if settings.residual == "p-y" else -1)


def _is_finite(loss: float, gradient: Mapping[str, Array]) -> bool:
    return math.isfinite(loss) and all(np.isfinite(tensor).all() for tensor in gradient.values())


def _not_finite(probe: Probe, settings: Settings) -> Cause | None:
    """What is not finite at the trial's own start, in its own precision."""
    loss = probe.loss()
    if _is_finite(loss, probe.gradient()):
        return None
    z = probe.logits()
    if not np.isfinite(z).all():
        return (
            "not finite",
            "the logits are not finite at the start: smaller weights (init), or inputs (data.normalize)",
        )
    with np.errstate(all="ignore"):
        p = probe.lane.loss.outputs(z)
    if not np.isfinite(p).all():
        mistake = bugs.CATALOGUE["unshifted_softmax"]
        return mistake.name, f"the largest logit is {z.max():.4g}; {mistake.mistake}: {mistake.fix}"
    remedy = "look at value(z, y) and gradient(z, y)"
    if isinstance(settings.loss, BuiltinLoss):
        remedy = "the form from logits (loss.from_logits=true) has no logarithm of 0, loss.eps_log avoids it"
    what = "the loss" if not math.isfinite(loss) else "the gradient"
    return (
        "not finite",
        f"{what} is not finite at the start, with outputs from {p.min():.3g} to {p.max():.3g}: {remedy}",
    )


# Central differences.


def _allowance(loss: float, step: float) -> float:
    """How far rounding of the loss may move a central difference."""
    return 20 * float(np.finfo(float).eps) * max(1.0, abs(loss)) / step


def _slope(loss: Callable[[float], float], start: float, step: float) -> float | None:
    """The central difference; None where the slopes to both sides differ by more than curvature can do: a kink."""
    forward, backward = loss(step) - start, start - loss(-step)
    kink = abs(forward - backward) > KINK * max(abs(forward), abs(backward)) + _allowance(start, 1.0)
    return None if kink else (forward + backward) / (2 * step)


def _measured(
    loss: Callable[[float], float], start: float, analytic: float, scale: float, steps: Sequence[float]
) -> tuple[float, float] | None:
    """The slope nearest to the analytic one over the steps, and its difference beyond rounding in units of `scale`.

    A wrong gradient is wrong at every step, a right one beside a kink at the larger ones only. None where all
    the steps cross a kink.
    """
    found: tuple[float, float] | None = None
    for step in steps:
        slope = _slope(loss, start, step)
        if slope is None:
            continue
        difference, allowance = abs(analytic - slope), _allowance(start, step)
        floor = allowance / TOLERANCE if difference <= allowance else 0.0
        error = difference / max(scale, abs(slope), floor)
        if found is None or error < found[1]:
            found = slope, error
        if error <= TOLERANCE:
            break
    return found


def _tensor(probe: Probe, name: str, sign: int, coded: Array, start: float, seed: int) -> TensorCheck:
    """Compare a sample of a tensor's coordinates, the largest among them; kinks of the loss are passed over."""
    rng = np.random.default_rng((seed, len(name), coded.size))
    places = rng.choice(coded.size, min(COORDINATES, coded.size), replace=False)
    places = np.union1d(places[: COORDINATES - 1], [int(np.abs(coded).argmax())])
    largest = float(np.abs(coded).max())
    steps: Sequence[float] = STEPS
    entries, errors = [], [0.0]
    for place in places.tolist():
        analytic = float(coded.flat[place])
        found = _measured(partial(probe.loss_at, name, place), start, analytic, largest, steps)
        if found is not None:
            index = tuple(int(i) for i in np.unravel_index(place, coded.shape))
            entries.append(Entry(name, index, analytic, found[0]))
            errors.append(found[1])
            # One coordinate that is wrong at every step is enough; the others need no patience.
            steps = STEPS[:1] if max(errors) > TOLERANCE else STEPS
    return TensorCheck(name, tuple(entries), max(errors), _cosine(entries, sign))


def _cosine(entries: Sequence[Entry], sign: int) -> float | None:
    """Between the raw step and the negative numerical gradient."""
    step = np.array([-sign * entry.analytic for entry in entries])
    descent = np.array([-entry.numeric for entry in entries])
    norms = float(np.linalg.norm(step) * np.linalg.norm(descent))
    return float(step @ descent / norms) if norms > 0 else None


def _one_step(
    probe: Probe, coded: Mapping[str, Array], sign: int, start: float, seed: int
) -> tuple[float | None, float | None, float]:
    """Change of the loss for one small raw step, predicted and actual, and the error along random directions."""
    norm = _norm(coded)
    if norm == 0:
        return None, None, 0.0
    step: dict[str, Array] = {name: -sign * tensor / norm for name, tensor in coded.items()}
    slope = (probe.loss_along(step, STEPS[0]) - probe.loss_along(step, -STEPS[0])) / (2 * STEPS[0])
    actual = probe.loss_along(step, CHANGE) - start
    rng = np.random.default_rng((seed, 1))
    worst = 0.0
    for _ in range(DIRECTIONS):
        drawn = {name: np.asarray(rng.standard_normal(tensor.shape)) for name, tensor in coded.items()}
        length = _norm(drawn)
        direction = {name: tensor / length for name, tensor in drawn.items()}
        analytic = sum(float((coded[name] * direction[name]).sum()) for name in coded)
        found = _measured(partial(probe.loss_along, direction), start, analytic, norm, STEPS)
        worst = max(worst, found[1] if found else 0.0)
    return slope * CHANGE, actual, worst


def _norm(weights: Mapping[str, Array]) -> float:
    return math.sqrt(sum(float(np.square(tensor).sum()) for tensor in weights.values()))


# What may be wrong in the loss by itself.


@dataclass(frozen=True)
class _Loss:
    """A loss at made-up logits: z, p, y `(1, C, N)`, the gradient as coded and by central differences (NaN at kinks).

    `size` is that of the values, whose rounding the differences cannot tell from an error.
    """

    loss: losses.Loss
    z: Array
    p: Array
    y: Array
    coded: Array
    numeric: Array
    size: float

    @classmethod
    def at_made_up_logits(cls, loss: losses.Loss, units: int, settings: Settings) -> "_Loss":
        # With two classes some mistakes are the same as others; a loss of our own takes any number.
        classes = max(units, 3) if units > 1 and isinstance(settings.loss, BuiltinLoss) else units
        # Every class is a target once, or the mistake in one of them would not show.
        samples = max(SAMPLES, min(classes, MOST_MADE_UP))
        z = 1.5 * np.random.default_rng((settings.seed, 2)).standard_normal((1, classes, samples))
        labels = np.arange(samples) % max(classes, 2)
        y = (labels == (np.arange(classes)[:, None] if classes > 1 else 1)).astype(float)[None]
        y = y.reshape(1, classes, samples)
        with np.errstate(all="ignore"):
            p = loss.outputs(z)
            size = max(1.0, float(np.abs(loss.value(z, p, y)).max()))
            coded = np.asarray(loss.gradient(z, p, y), float)
            numeric = np.stack([cls._by_class(loss, z, y, index, size) for index in range(classes)], axis=1)
        return cls(loss, z, p, y, coded, numeric, size)

    @staticmethod
    def _by_class(loss: losses.Loss, z: Array, y: Array, index: int, size: float) -> Array:
        """The derivative of every sample's value by its logit of one class, `(1, N)`."""

        def value(step: float) -> Array:
            moved = z.copy()
            moved[:, index] += step
            return np.asarray(loss.value(moved, loss.outputs(moved), y), float)

        step, start = STEPS[0], value(0.0)
        forward, backward = value(step) - start, start - value(-step)
        kink = np.abs(forward - backward) > KINK * np.maximum(np.abs(forward), np.abs(backward)) + _allowance(size, 1.0)
        return np.where(kink, np.nan, (forward + backward) / (2 * step))

    @property
    def error(self) -> float:
        return self._difference(self.coded, self.numeric)

    def _difference(self, a: Array, b: Array) -> float:
        """The largest difference, kinks left out, over the largest number there is."""
        known = np.isfinite(self.numeric)
        scale = max(float(np.abs(each[known]).max(initial=0.0)) for each in (a, b))
        worst = float(np.abs(a - b)[known].max(initial=0.0))
        return worst / max(scale, _allowance(self.size, STEPS[0]) / TOLERANCE) if math.isfinite(worst) else math.inf

    def tensor(self, sign: int) -> TensorCheck:
        """For the table: sample by sample, class by class."""
        entries = tuple(
            Entry(LOGITS, (sample, index), float(self.coded[0, index, sample]), float(self.numeric[0, index, sample]))
            for index, sample in np.argwhere(np.isfinite(self.numeric[0])).tolist()
        )
        return TensorCheck(LOGITS, entries, self.error, _cosine(entries, sign))

    def cause(self, settings: Settings) -> Cause | None:
        """The first hypothesis that explains the gradient as coded; None where it is right."""
        if self.error <= TOLERANCE:
            return None
        name, words = self._first() or ("wrong derivative", "the loss's gradient is not its value's derivative")
        if isinstance(settings.loss, BuiltinLoss):
            return name, words
        worst = max(self.tensor(1).entries, key=lambda entry: abs(entry.analytic - entry.numeric))
        sample, index = worst.index
        coded = f"gradient(z, y)[{sample}, {index}] is {worst.analytic:.6g}"
        return name, f"{words} ({coded}, the slope of value(z, y) there is {worst.numeric:.6g})"

    def _first(self) -> Cause | None:
        for flip in (1, -1):
            cause = self._scaled(flip * self.coded) or self._misread(flip * self.coded)
            if cause is not None:
                return cause if flip == 1 else (WRONG_SIGN, f"{_NEGATIVE}; besides, {cause[1]}")
        return self._mixed_up()

    def _scaled(self, coded: Array) -> Cause | None:
        """Hypotheses about one factor everywhere; a negative one is left to the other sign."""
        known = np.isfinite(self.numeric)
        square = float(np.square(self.numeric[known]).sum())
        factor = float((coded * self.numeric)[known].sum()) / square if square else 0.0
        if factor == 0 or self._difference(coded, factor * self.numeric) > MATCH:
            return None
        if abs(factor + 1) <= MATCH:
            return WRONG_SIGN, f"{_NEGATIVE}: change it"
        if factor < 0:
            return None
        words = f"the loss's gradient is {factor:.6g} times the derivative of its value, everywhere alike"
        if self._depends_on_samples():
            return "factor of samples", f"{words}, and the factor changes with the number of samples: {_EACH_SAMPLE}"
        if self.z.shape[-2] == 2 and abs(factor - 0.5) <= MATCH:
            words += " (of two classes, a softmax's Jacobian reduced to its diagonal looks the same)"
        return "scale factor", f"{words}: a factor is missing, or one too many"

    def _depends_on_samples(self) -> bool:
        half = slice(self.z.shape[-1] // 2)
        with np.errstate(all="ignore"):
            fewer = self.loss.gradient(self.z[..., half], self.p[..., half], self.y[..., half])
        return not _close(fewer, self.coded[..., half])

    def _misread(self, coded: Array) -> Cause | None:
        """Hypotheses about the output function's derivative."""
        p, output = self.p, self.loss.output
        if output == "identity":
            return None
        jacobian = losses.softmax_jacobian if output == "softmax" else losses.sigmoid_jacobian
        if self._is_derivative(jacobian(p, coded)):
            return "missing_jacobian", f"it is the gradient by the outputs p: multiply it by the {output}'s derivative"
        if output == "softmax" and self._is_derivative(jacobian(p, coded / (p * (1 - p)))):
            return _of_catalogue("diagonal_jacobian")
        if self._difference(coded, jacobian(p, self.numeric)) <= MATCH:
            return "jacobian_twice", f"the {output}'s derivative is applied twice: leave one out"
        return None

    def _is_derivative(self, candidate: Array) -> bool:
        return self._difference(candidate, self.numeric) <= MATCH

    def _mixed_up(self) -> Cause | None:
        """Whether value or gradient is that of one of ablate's own losses, and the other is not."""
        others = losses.over(self.loss.output) if self.z.shape[-2] > 1 else []
        gradients = [
            (each.name, losses.build(each, self.loss.output).gradient(self.z, self.p, self.y)) for each in others
        ]
        for name, gradient in gradients:
            if _close(self.coded, gradient):
                return "another loss", f"gradient(z, y) is that of loss={name}, value(z, y) is not: look at value(z, y)"
        for name, gradient in gradients:
            if self._is_derivative(gradient):
                return "wrong derivative", f"value(z, y) is that of loss={name}: look at gradient(z, y)"
        return None


_NEGATIVE = "the loss's gradient has the wrong sign, so every step climbs"
_EACH_SAMPLE = "give each sample its own gradient, the batch's mean is taken for you"


# What may be wrong in the backward pass.


def _not_repeatable(coded: Mapping[str, Array], again: Mapping[str, Array]) -> Cause | None:
    """Whether the same samples and weights give the same gradient a second time."""
    if _alike(again, coded):
        return None
    if _alike(again, {name: 2 * tensor for name, tensor in coded.items()}):
        return _of_catalogue("stale_gradients")
    return "not repeatable", "the same samples give another gradient the second time: it keeps a state or draws numbers"


def _of_backward(network: Architecture, few: Dataset, lane: Lane, coded: Mapping[str, Array]) -> Cause | None:
    """Hypotheses that need a backward pass of their own: the correct one with the mistake made on purpose."""

    def gradient(bug: str) -> Mapping[str, Array]:
        return Probe(network, few, replace(lane, bug=bug)).gradient()

    right = gradient("none")
    if _alike(coded, right):
        return None
    for name in ("missing_activation_derivative", "missing_divisor", "sum_for_mean", "bias_gradient"):
        wrong = gradient(name)
        if _alike(coded, wrong):
            return _of_catalogue(name)
    return None


def _of_kernels(settings: Settings, probe: Probe, coded: Mapping[str, Array]) -> Cause | None:
    """Whether the kernels compute another gradient than NumPy does of the same loss and network."""
    if settings.backend == "numpy" or _alike(coded, probe.gradient()):
        return None
    return "kernel", f"the CUDA kernels' gradient is not NumPy's: {_A_KERNEL}"


def _of_steps(settings: Settings, network: Architecture, few: Dataset, lane: Lane) -> Cause | None:
    """Whether some updates by the kernels lead to other weights than NumPy's: a faulty update rule, say."""
    if settings.backend == "numpy":
        return None
    rows, device = len(few.y_train), cuda.device(settings.device)
    engines = NumpyEngine(network, few, [lane], rows), cuda.CudaEngine(network, few, [lane], rows, device)
    for engine in engines:
        for _ in range(UPDATES):
            engine.train_epoch([np.arange(rows)], [])
    expected, found = (engine.weights(0) for engine in engines)
    is_finite = all(np.isfinite(tensor).all() for tensor in expected.values())
    apart = max(_distance(found[name], tensor) for name, tensor in expected.items())
    if not is_finite or apart <= ROUNDING:
        return None
    return "kernel", f"after {UPDATES} updates the CUDA kernels' weights are not NumPy's: {_A_KERNEL}"


def _distance(found: Array, expected: Array) -> float:
    """The largest difference, over the largest number; NaN counts as far away."""
    difference = np.abs(found - expected).max() / (np.abs(expected).max() or 1.0)
    return float(difference) if np.isfinite(difference) else math.inf


_A_KERNEL = "the mathematics is right, a kernel is not (docs/cuda.md says how to look for it)"


def _of_catalogue(name: str) -> Cause:
    bug = bugs.CATALOGUE[name]
    return name, f"{bug.mistake}: {bug.fix}"


def _alike(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return all(_close(a[name], b[name]) for name in a)


def _close(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max(initial=0.0) <= MATCH * np.abs(b).max(initial=0.0))
