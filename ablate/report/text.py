"""The words of a report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablate.report import markdown
from ablate.report.cells import Cell, Study


def report(study: Study, picture: str) -> str:
    """The whole page in Markdown; `picture` is the path of the curves as seen from it."""
    parts = [f"# {study.title}", *_commands(study), facts(study), table(study), f"![curves]({picture})", caption(study)]
    return "\n\n".join(parts) + "\n"


def _commands(study: Study) -> Iterator[str]:
    if study.commands:
        yield "\n".join(["```sh", *(f"python -m {command}" for command in study.commands), "```"])


def facts(study: Study) -> str:
    """How many trials of what, and what they were trained on."""
    seeds = sorted({trial.row["seed"] for trial in study.trials})
    counts = sorted({len(cell.trials) for cell in study.cells})
    repeats = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    trials, number = len(study.trials), len(study.cells)
    what = f"{trials} trial{'s' if trials > 1 else ''}"
    if number > 1:
        what += f": {number} combinations, n = {repeats} each"
    lines = [f"{what} ({'seeds' if len(seeds) > 1 else 'seed'} {_listed(seeds)})."]
    lines += [f"- `{key}`: {', '.join(levels)}" for key, levels in study.factors.items()]
    setting = "\n".join([_setting(study), *_notices(study)]).strip()
    return "\n".join([*lines[:1], "", *lines[1:], *([""] if setting and lines[1:] else []), setting]).strip()


def _listed(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _setting(study: Study) -> str:
    """Data, epochs and precision, where they are the same for all trials and known."""
    found = {_trained_on(trial.config) for trial in study.trials if trial.config}
    return f"{found.pop()}." if len(found) == 1 else ""


def _notices(study: Study) -> Iterator[str]:
    """How data were taken, where that is not as they stand in their files; each line once, a paragraph each."""
    found = dict.fromkeys(line for trial in study.trials for line in trial.folder.read_notices())
    return (f"\n{line}" for line in found)


def _trained_on(config: Mapping[str, Any]) -> str:
    limit = config["data"].get("train_limit")
    data = config["data"]["name"] + (f" (the first {limit:,} training samples)" if limit else "")
    batch = config.get("batch_size")
    parts = [f"Data: {data}", f"at most {config['epochs']:,} epochs" if config["epochs"] > 1 else "one epoch"]
    parts += [f"batches of {batch:,}"] if batch else []
    return ", ".join([*parts, config["dtype"]])


def table(study: Study) -> str:
    """One line a cell, the best first: test score and loss over its seeds, verdicts, and why of the typical trial."""
    head = [*study.factors, study.called, "lowest", "highest", "test loss", "n", "verdict", "why (typical trial)"]
    rows = [[*cell.levels.values(), *_figures(cell), *_judged(cell)] for cell in study.best_first]
    return markdown.table(head, rows)


def _figures(cell: Cell) -> list[str]:
    values = (cell.mean, min(cell.scores), max(cell.scores)) if cell.scores else ()
    scores = [cell.task.written(value) for value in values] or ["–"] * 3
    loss = "–" if cell.test_loss is None else f"{cell.test_loss:.4g}"
    return [*scores, loss, str(len(cell.trials))]


def _judged(cell: Cell) -> list[str]:
    return [verdicts(cell), str(cell.typical.row["why"])]


def verdicts(cell: Cell) -> str:
    """`trained`, or `collapsed 2, stuck 1` where the seeds differ."""
    counts = cell.verdicts
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{name} {count}" for name, count in counts)


def caption(study: Study) -> str:
    """How to read the picture."""
    by_step = max(trial.row["epochs"] for trial in study.trials) <= 1
    loss = "batch by batch, smoothed" if by_step else "mean over each epoch, and of the first batch at 0"
    losses = f"Training loss ({loss})" if by_step else f"Training loss ({loss}), test loss on the same scale"
    parts = [f"{losses} and {study.called}."]
    if study.drops_units:
        parts.append(
            "With dropout the training loss is that of the network with units off, the test loss that of the whole"
            " network, and may be the lower one."
        )
    if len(study.trials) > len(study.cells):
        parts.append("Thin: one seed each; thick: their mean.")
    parts.append("A cross marks where a loss ceased to be a finite number.")
    return " ".join(parts)
