"""What a user sees: lines in a pipe, a live table on a terminal, the results best first."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers
import pytest
from rich.console import Console

from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import EndedTrial, TrialFolder
from ablate.terminal import progress as live
from ablate.terminal import tables
from ablate.trials.trial import Trial


def trials(*overrides: str) -> list[Trial]:
    """One trial for each list of overrides."""
    return [replace(helpers.trial(*written.split()), number=number) for number, written in enumerate(overrides)]


def record(folder: Path, number: int, losses: list[float | None]) -> None:
    """A `metrics.jsonl` with one epoch for each loss."""
    (folder / str(number)).mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [{"step": 0, "epoch": 0, "test/loss": 2.5, "test/accuracy": 0.1}]
    for epoch, loss in enumerate(losses, 1):
        line = {"step": epoch, "epoch": epoch, "train/loss": loss, "test/loss": loss, "test/accuracy": 0.5}
        lines += [{"step": epoch - 1, "epoch": epoch, "step/loss": loss}, line]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / str(number) / "metrics.jsonl").write_text(text, encoding="utf-8")


def row(number: int, accuracy: float | None, verdict: str = "trained", **more: Any) -> dict[str, Any]:
    return {
        "trial": number,
        "status": "finished",
        "verdict": verdict,
        "why": f"reason {number}",
        "overrides": {"lr": 0.1 * (number + 1)},
        "seed": 0,
        "test_accuracy": accuracy,
        "test_loss": 0.5,
        "train_accuracy": accuracy,
        "train_loss": 0.25,
        "epochs": 3,
        "seconds": 1.5,
    } | more


def ended(rows: list[Any]) -> list[EndedTrial]:
    return [EndedTrial(row, TrialFolder(Path(str(row["trial"])))) for row in rows]


def on_terminal(height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140, height=height, color_system="truecolor")


def in_pipe() -> Console:
    return Console(file=io.StringIO(), width=140)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([2.0, 2.0, 2.0], "▁▁▁"),
        ([0.0, 7.0], "▁█"),
        ([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], "█▇▆▅▄▃▂▁"),
    ],
)
def test_sparkline(values: list[float], bars: str) -> None:
    assert live.sparkline(values) == bars


def test_a_long_sparkline_keeps_its_width_and_its_shape() -> None:
    bars = live.sparkline([float(value) for value in range(1000, 0, -1)], width=16)
    assert (len(bars), bars[0], bars[-1]) == (16, "█", "▁")
    assert list(bars) == sorted(bars, reverse=True)


def test_a_pipe_gets_a_line_as_each_trial_ends(tmp_path: Path) -> None:
    console, three = in_pipe(), trials("lr=0.1", "lr=0.5", "lr=0.9")
    with live.progress(console, SweepFolder(tmp_path), three):
        for number, accuracy, reason in ((1, 0.25, "reason"), (0, 0.975, ""), (2, 0.5, "the accuracy is 50.0%")):
            (tmp_path / str(number)).mkdir()
            done = row(number, accuracy, "plateau" if number else "trained", why=reason)
            (tmp_path / str(number) / "result.json").write_text(json.dumps(done))
    lines = text(console).splitlines()
    assert sorted(lines) == [
        "trial 0 (lr=0.1 seed=0): trained, test accuracy 97.5%",
        "trial 1 (lr=0.5 seed=0): plateau, test accuracy 25.0%: reason",
        "trial 2 (lr=0.9 seed=0): plateau: the accuracy is 50.0%",
    ]


def test_the_live_table_has_a_row_a_trial(tmp_path: Path) -> None:
    console, three = on_terminal(), trials("lr=0.1", "lr=0.5", "lr=0.9")
    progress = live.progress(console, SweepFolder(tmp_path), three)
    assert isinstance(progress, live.LiveTable)
    for losses in ([2.0], [2.0, 1.0], [2.0, 1.0, 0.5]):
        record(tmp_path, 0, list(losses))
        progress.table()
    record(tmp_path, 1, [None])
    (tmp_path / "1" / "result.json").write_text(json.dumps(row(1, None, "diverged")))
    console.print(progress.table())
    lines = text(console).splitlines()
    head = next(line for line in lines if "train loss" in line)
    for column in ("trial", "lr", "seed", "epoch", "test loss", "test acc.", "loss"):
        assert column in head
    training, ended, waiting = (
        next(line for line in lines if word in line) for word in ("training", "diverged", "waiting")
    )
    for part in ("0.1", "3/10", "0.5", "50.0%", "█", "▁"):
        assert part in training
    assert "0.5" in ended
    assert "1/10" in ended
    assert "0.9" in waiting
    assert "0/10" in waiting


def test_a_terminal_is_drawn_on_while_it_trains(tmp_path: Path) -> None:
    console, one = on_terminal(), trials("lr=0.1")
    record(tmp_path, 0, [1.0])
    with live.progress(console, SweepFolder(tmp_path), one):
        pass
    assert "training" in text(console)
    assert "\x1b[" in text(console)


def test_a_large_sweep_shows_what_fits(tmp_path: Path) -> None:
    console, many = on_terminal(height=16), trials(*(f"lr={number + 1}" for number in range(30)))
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(json.dumps(row(0, 0.9)))
    console.print(live.LiveTable(console, SweepFolder(tmp_path), many).table())
    assert len(text(console).splitlines()) <= 16
    assert "1 of 30 trials have ended" in text(console)


def test_a_half_written_line_is_left_for_later(tmp_path: Path) -> None:
    console, one = on_terminal(), trials("lr=0.1")
    record(tmp_path, 0, [1.0, 0.5])
    path = tmp_path / "0" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "epoch": 3, "test/loss": 0.')
    console.print(live.LiveTable(console, SweepFolder(tmp_path), one).table())
    assert "2/10" in text(console)


def test_results_are_best_first_with_reasons_below() -> None:
    console = in_pipe()
    found = [row(0, 0.5, "plateau"), row(1, None, "failed", seconds=None), row(2, 0.975), row(3, 0.975, test_loss=0.1)]
    tables.print_results(console, ended(found), ["lr"])
    lines = [line.split() for line in text(console).splitlines() if line.strip()]
    order = [words[0] for words in lines if words[0].isdigit()]
    assert order == ["3", "2", "0", "1"]
    assert "97.5%" in lines[2]
    assert [" ".join(words) for words in lines[-2:]] == ["trial 0 plateau: reason 0", "trial 1 failed: reason 1"]


def test_verdicts_are_coloured_on_a_terminal() -> None:
    console = on_terminal()
    tables.print_results(console, ended([row(0, 0.975), row(1, 0.1, "diverged")]), ["lr"])
    green, red = "\x1b[32m", "\x1b[31m"
    assert f"{green}trained" in text(console)
    assert f"{red}diverged" in text(console)


def test_every_verdict_has_a_colour() -> None:
    verdicts = {"failed", "ascending", "diverged", "collapsed", "stuck", "slow", "trained", "plateau"}
    assert tables.COLOURS.keys() >= verdicts
