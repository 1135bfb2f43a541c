"""What is known about a trial, and what to try next: `python -m ablate.explain runs/<sweep>/<trial>`."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ablate import interrupts
from ablate.config.groups import completed
from ablate.config.settings import shown
from ablate.diagnosis.advice import DEAD, MOST_LINES, SATURATED, Known, advice, changes, ranked
from ablate.diagnosis.rehearsal import rehearse
from ablate.errors import ConfigError
from ablate.records.scores import task_of
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import TrialFolder
from ablate.terminal.console import terminal
from ablate.terminal.progress import sparkline
from ablate.terminal.tables import print_check


def read(path: Path) -> Known:
    """Read a trial's folder. Raises ConfigError if it is not one, or if the trial has not ended."""
    folder = TrialFolder(path)
    config = folder.read_config()
    if not config:
        trials = [trial.path.name for trial in SweepFolder(path).trials() if trial.is_begun]
        there = f", here one of {', '.join(trials)}" if trials else ""
        raise ConfigError(f"{path}: not the folder of a trial; expected runs/<sweep>/<number>{there}")
    row = folder.read_result()
    if row is None:
        raise ConfigError(f"{path}: the trial has not ended yet; try again when the sweep has")
    check, evidence, metrics = folder.read_check(), folder.read_evidence(), folder.read_metrics()
    return Known(completed(config), row, check, metrics, folder.read_notices(), evidence)


def explain(console: Console, known: Known) -> None:
    """Print what happened, what the checks and the watching found, and what to try."""
    row = known.row
    console.print(f"trial {row['trial']}: {_described(known)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nverdict  {row['verdict']}: {row['why']}", markup=False, highlight=False, soft_wrap=True)
    # Of whole epochs, so that the curves stand below each other; the untrained network has no training loss.
    epochs = [record for record in known.metrics if "test/loss" in record] if row["epochs"] else []
    for name in ("train/loss", "test/loss", f"test/{task_of(row).score}"):
        if curve := known.curve(name) if epochs else []:
            line = f"  {name:<14} {sparkline([record.get(name) for record in epochs], 32)}"
            console.print(f"{line}  {curve[0]:.4g} to {curve[-1]:.4g}", markup=False, highlight=False)
    if known.notices:
        console.print("\nits data")
        for line in known.notices:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if known.check is not None:
        console.print("\nbefore training")
        print_check(console, known.check)
    seen = list(_seen(known))
    if seen:
        console.print("\nduring training")
        for line in seen:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    # What the steps show stands among what was seen.
    shown = [cause for cause in known.causes if cause.name != "steps"]
    if shown:
        console.print("\nwhat the data, the start and the network show")
        for cause in shown:
            console.print(f"  {cause.said}", markup=False, highlight=False, soft_wrap=True)
    _print_advice(console, known)


def _print_advice(console: Console, known: Known) -> None:
    """What to try, after it has been tried for some steps, if that is possible here."""
    wanted, tried, reason = changes(known), None, None
    if wanted:
        try:
            with console.status("trying changes on a part of the data"):
                tried = rehearse(known.config, wanted, known.evidence.data if known.evidence else None)
        except ConfigError as error:
            reason = str(error)
    console.print("\nwhat to try next")
    if tried is not None:
        line = f"tried for {tried.steps} steps on {tried.rows} samples; as it is: {tried.as_it_is}"
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if reason is not None:
        console.print(f"  nothing was tried: {reason}", markup=False, highlight=False, soft_wrap=True)
    for number, line in enumerate(advice(known, tried), 1):
        console.print(f"  {number}. {line}", markup=False, highlight=False, soft_wrap=True)
    if tried is None:
        return
    listed = {
        "also better": ranked(known, tried)[MOST_LINES:],
        f"the {tried.test_rows} test rows cannot tell these from the trial as it is": tried.untold,
        "no better there": tried.others,
    }
    for said, outcomes in listed.items():
        if outcomes:
            line = ", ".join(f"{outcome.change} ({outcome.written})" for outcome in outcomes)
            console.print(f"  {said}: {line}", markup=False, highlight=False, soft_wrap=True)
    if tried.left_out:
        line = f"not tried, since it takes too long here: {', '.join(map(str, tried.left_out))}"
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


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
    """Lines on what the watching during training noticed."""
    large, small = known.total("watch/too_large"), known.total("watch/too_small")
    if large:
        yield f"{_times(large)} a number of the output layer moved by more than 1 in one step: a large step"
    if small and not large and known.row["verdict"] in ("stuck", "slow", "collapsed"):
        yield f"{_times(small)} a number of the output layer moved by less than 1e-7 in one step: hardly at all"
    dead, saturated = known.last("watch/dead_units"), known.last("watch/saturated")
    if dead is not None and dead > DEAD:
        yield f"{dead:.0%} of the ReLU units give 0 on every sample looked at: they are dead and learn no more"
    if saturated is not None and saturated > SATURATED:
        yield f"{saturated:.0%} of the sigmoid or tanh values are at the function's ends, where its slope is nearly 0"
    share = known.last("watch/largest_class")
    usual = 0.0 if known.evidence is None else known.evidence.facts.test_majority_share or 0.0
    if share is not None and share > max(0.5, usual + 0.1) and known.row["verdict"] != "trained":
        yield f"{share:.0%} of the test predictions are one and the same class"
    if known.has_run_away:
        yield "the outputs are at 0 and 1 although not all predictions are right: the logits have run away"


def _times(count: float) -> str:
    return "once" if count == 1 else f"{count:.0f} times"


def main() -> None:
    """Explain the trial named on the command line; exit code 2 and one line if there is no such trial."""
    interrupts.outlive_readers()
    parser = argparse.ArgumentParser(prog="python -m ablate.explain", description=__doc__)
    parser.add_argument("trial", type=Path, help="the folder of a trial, runs/<sweep>/<number>")
    try:
        explain(terminal(), read(parser.parse_args().trial))
    except (ConfigError, OSError) as error:
        print(f"ablate: {error}", file=sys.stderr)
        raise SystemExit(2) from None
