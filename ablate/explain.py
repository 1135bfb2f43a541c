"""What is known of a trial, and what to try next: `python -m ablate.explain runs/<sweep>/<trial>`."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from ablate import bugs, records, terminal
from ablate.check import Check
from ablate.config import shown
from ablate.errors import ConfigError


@dataclass(frozen=True)
class Known:
    """A trial as its folder tells of it: configuration, row, checks (None where none were made), all metrics."""

    config: Mapping[str, Any]
    row: Mapping[str, Any]
    check: Check | None
    metrics: list[dict[str, Any]]

    def last(self, name: str) -> float | None:
        """The last value recorded of a metric, None where there is none."""
        return next((record[name] for record in reversed(self.metrics) if record.get(name) is not None), None)

    @property
    def creeps(self) -> bool:
        """Whether the loss was still at its lowest at the end, after steps none of which was large."""
        curve = [record["test/loss"] for record in self.metrics if record.get("test/loss") is not None]
        return len(curve) > 2 and curve[-1] <= min(curve) < curve[0] and not self.total("watch/too_large")

    def total(self, name: str) -> float:
        """A counting metric over the whole training."""
        return sum(record.get(name) or 0 for record in self.metrics)


def read(folder: Path) -> Known:
    """Read a trial's folder. Raises ConfigError where it is none, or the trial has not ended."""
    config = folder / ".hydra" / "config.yaml"
    if not config.is_file():
        trials = [path.parents[1].name for path in folder.glob("*/.hydra/config.yaml")]
        trials.sort(key=lambda name: (len(name), name))
        there = f", here one of {', '.join(trials)}" if trials else ""
        raise ConfigError(f"{folder}: not the folder of a trial; expected runs/<sweep>/<number>{there}")
    row = records.read_result(folder)
    if row is None:
        raise ConfigError(f"{folder}: the trial has not ended yet; try again when the sweep has")
    resolved = OmegaConf.to_container(OmegaConf.load(config))
    assert isinstance(resolved, dict)
    values = {str(key): value for key, value in resolved.items()}
    return Known(values, row, records.read_check(folder), records.read_metrics(folder))


def explain(console: Console, known: Known) -> None:
    """Print what happened, what the checks and the watching saw, and what to try."""
    row = known.row
    console.print(f"trial {row['trial']}: {_described(known)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nverdict  {row['verdict']}: {row['why']}", markup=False, highlight=False, soft_wrap=True)
    for name in ("train/loss", "test/loss", "test/accuracy"):
        curve = [record[name] for record in known.metrics if record.get(name) is not None]
        if curve:
            line = f"  {name:<14} {terminal.sparkline(curve, 32)}  {curve[0]:.4g} to {curve[-1]:.4g}"
            console.print(line, markup=False, highlight=False)
    if known.check is not None:
        console.print("\nbefore training")
        terminal.print_check(console, known.check)
    seen = list(_seen(known))
    if seen:
        console.print("\nduring training")
        for line in seen:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nwhat to try next")
    for number, line in enumerate(advice(known), 1):
        console.print(f"  {number}. {line}", markup=False, highlight=False, soft_wrap=True)


def _described(known: Known) -> str:
    """What distinguishes the trial first, then what else it was made of."""
    keys = ("update_sign", "residual", "lr", "output_lr", "batch_size", "epochs", "seed", "dtype", "bug")
    overrides = known.row.get("overrides", {})
    values = {
        **overrides,
        **{key: value for key, value in known.row.get("choices", {}).items() if key not in overrides},
        **{key: known.config[key] for key in keys if known.config.get(key) not in (None, "none")},
    }
    return " ".join(f"{key}={shown(value)}" for key, value in values.items() if key not in ("tracking", "stop"))


def _seen(known: Known) -> Iterator[str]:
    """What the watching during training noticed, where it is worth a line."""
    large, small = known.total("watch/too_large"), known.total("watch/too_small")
    if large:
        yield f"{large:.0f} times a number of the output layer moved by more than 1 in one step: a large step"
    if small and not large:
        yield f"{small:.0f} times a number of the output layer moved by less than 1e-7 in one step: hardly at all"
    dead, saturated = known.last("watch/dead_units"), known.last("watch/saturated")
    if dead is not None and dead > 0.2:
        yield f"{dead:.0%} of the ReLU units give 0 on every sample looked at: they are dead and learn no more"
    if saturated is not None and saturated > 0.5:
        yield f"{saturated:.0%} of the sigmoid or tanh values are at the function's ends, where its slope is nearly 0"
    share = known.last("watch/largest_class")
    if share is not None and share > 0.5:
        yield f"{share:.0%} of the test predictions are one and the same class"
    confidence = known.last("test/confidence")
    if confidence is not None and confidence > 0.999 and (known.row["test_accuracy"] or 0) < 0.95:
        yield "the outputs are at 0 and 1 although not all predictions are right: the logits have run away"


def advice(known: Known) -> list[str]:
    """What to try, the likeliest first; never empty."""
    lines = list(_advice(known))
    return lines or ["look at the curves beside those of its neighbours: mlflow ui"]


def _advice(known: Known) -> Iterator[str]:
    row, config = known.row, known.config
    lr = config["lr"]
    if known.check is not None and known.check.advice:
        yield known.check.advice
    bug = bugs.CATALOGUE.get(config.get("bug", "none"))
    if bug is not None and (known.check is None or known.check.guess != bug.name):
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
            yield "mend what is said above, or let it run to its end; the sweep's ablate.log may say more"
        case "trained":
            yield "nothing is wrong here; repeat it with -m 'seed=range(0,5)' to see how much is chance"


def main() -> None:
    """Explain the trial that the command line names; code 2 and one line where it names none."""
    parser = argparse.ArgumentParser(prog="python -m ablate.explain", description=__doc__)
    parser.add_argument("trial", type=Path, help="the folder of a trial, runs/<sweep>/<number>")
    try:
        explain(terminal.console(), read(parser.parse_args().trial))
    except ConfigError as error:
        print(f"ablate: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
