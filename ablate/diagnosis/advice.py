"""What is known about a trial that has run, and what to try next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.diagnosis.checks import Check
from ablate.problem.mistakes import MISTAKES


@dataclass(frozen=True)
class Known:
    """A trial read from its folder: configuration, row, check (None if there was none), all metrics.

    `notices` say how its data were taken, where that is not as they stand in their files.
    """

    config: Mapping[str, Any]
    row: Mapping[str, Any]
    check: Check | None
    metrics: list[dict[str, Any]]
    notices: Sequence[str] = ()

    def last(self, name: str) -> float | None:
        """The last recorded value of a metric, None if there is none."""
        return next((record[name] for record in reversed(self.metrics) if record.get(name) is not None), None)

    @property
    def creeps(self) -> bool:
        """Whether the test loss was lowest at the end, and no step was large: training is merely slow."""
        curve = [record["test/loss"] for record in self.metrics if record.get("test/loss") is not None]
        return len(curve) > 2 and curve[-1] <= min(curve) < curve[0] and not self.total("watch/too_large")

    def total(self, name: str) -> float:
        """The sum of a counting metric over the whole training."""
        return sum(record.get(name) or 0 for record in self.metrics)


def advice(known: Known) -> list[str]:
    """What to try, the most likely first; never empty."""
    lines = list(_advice(known))
    return lines or ["look at the curves beside those of its neighbours: mlflow ui"]


def _advice(known: Known) -> Iterator[str]:
    row, config = known.row, known.config
    lr = config["lr"]
    if known.check is not None and known.check.advice:
        yield known.check.advice
    bug = MISTAKES.get(config.get("bug", "none"))
    if bug.mistake and (known.check is None or known.check.guess != bug.name):
        yield f"this trial has bug={bug.name} on purpose: {bug.mistake}; {bug.fix}"
    lower = f"a smaller learning rate: lr={lr / 5:g}, or sweep -m lr={lr / 100:g},{lr / 10:g},{lr:g}"
    higher = f"a larger learning rate: lr={lr * 5:g}, or sweep -m lr={lr:g},{lr * 10:g},{lr * 100:g}"
    naive = config["loss"].get("from_logits") is False
    start = config["init"]["name"]
    if config["model"].get("logits") == "relu" and (known.last("watch/dead_units") or 0) > 0:
        yield "no ReLU on the logits, since a class whose logit is dead is lost for good: model.logits=linear"
    if (known.last("watch/saturated") or 0) > 0.5:
        yield "smaller inputs, data.normalize=per_image or unit, or smaller weights: the activations are saturated"
    match row["verdict"]:
        case "ascending" if known.check is None or not known.check.advice:
            yield "turn the sign of the update: update_sign=minus with residual=p-y, or plus with y-p"
        case "collapsed" | "plateau" | "stuck" if known.creeps:
            yield higher
            yield f"more epochs: epochs={config['epochs'] * 3}"
        case "diverged" | "collapsed":
            yield lower
            if naive:
                yield "the stable form of the loss: loss.from_logits=true"
            if config["loss"].get("reduction") == "sum":
                yield "the mean instead of the sum, so that a step does not grow with the batch: loss.reduction=mean"
            yield "several seeds, to see whether it is chance: -m 'seed=range(0,5)'"
        case "stuck":
            yield higher
            if start != "glorot_uniform":
                yield "another start: init=glorot_uniform; weights all alike, or very small or large, learn slowly"
        case "slow":
            yield f"more epochs: epochs={config['epochs'] * 3}"
            yield higher
        case "plateau":
            yield lower
            yield "a larger model, or another loss: -m loss=ce,mse"
        case "failed":
            yield "mend what is said above; the sweep's ablate.log may say more"
        case "interrupted":
            yield "let it run to its end: the same command starts a new sweep"
        case "trained":
            yield "nothing is wrong here; repeat it with -m 'seed=range(0,5)' to see how much is chance"
