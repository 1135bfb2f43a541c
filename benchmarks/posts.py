"""Answers to four posts, from real runs: writes `docs/posts/`.

    ABLATE_DATA=<folder with mnist/> python -m benchmarks.posts                  # all pages
    ABLATE_DATA=<folder with mnist/> python -m benchmarks.posts digit_mlp        # one of them
    python -m benchmarks.posts --runs FOLDER --reuse                             # from the runs that are there

Each preset is run once, into FOLDER/<preset> (default runs/posts). Every figure on a page is computed from them.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ablate.problem.data import loading as data
from ablate.problem.data.dataset import Dataset
from ablate.records.sweep_folder import SweepFolder
from ablate.report import cells, text
from ablate.report.cells import Cell, Replicate, Study
from ablate.report.markdown import table
from ablate.report.page import write as write_report
from benchmarks import named
from benchmarks.machine import processor

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "posts"


# A run that is not a preset as it stands: the same, with other keys.
RUNS: Mapping[str, Sequence[str]] = {
    "xor_sigmoid": [
        *("experiment=xor_softmax", "loss=mse", "model.output=sigmoid", "model.units=1"),
        *("residual=y-p", "lr=0.002"),
    ],
}


def arguments(name: str) -> Sequence[str]:
    return RUNS.get(name, [f"experiment={name}"])


def run(name: str, folder: Path) -> None:
    """Run a preset into a fresh folder, and note how long the whole command took."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "ablate", *arguments(name), "tracking=none", f"hydra.sweep.dir={folder}"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder / "wall.json").write_text(json.dumps({"seconds": time.perf_counter() - start, "machine": machine()}))


def machine() -> str:
    """The processor in words, without this machine's name."""
    return f"{len(os.sched_getaffinity(0))} cores of an {processor()}, NumPy {np.__version__}"


# Figures


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def each(trials: Iterable[Replicate], key: str = "test_accuracy") -> str:
    """A figure of every seed, in the seeds' order: `96.6 % · 96.5 % · 97.0 %`."""
    ordered = sorted(trials, key=lambda trial: trial.row["seed"])
    return " · ".join(percent(trial.row[key]) for trial in ordered)


def find(study: Study, **levels: str) -> Cell:
    """The one cell with these levels; dots in keys are written as two underscores."""
    wanted = {key.replace("__", "."): level for key, level in levels.items()}
    [found] = [cell for cell in study.cells if wanted.items() <= cell.levels.items()]
    return found


def verdicts(chosen: Iterable[Cell]) -> str:
    """`trained 9, plateau 1` over the trials of some cells."""
    names = [trial.row["verdict"] for cell in chosen for trial in cell.trials]
    return ", ".join(
        f"{name} {names.count(name)}" for name in dict.fromkeys(sorted(names, key=names.count, reverse=True))
    )


def metric(trial: Replicate, name: str) -> dict[int, float | None]:
    """A metric by epoch, of every epoch."""
    return {record["epoch"]: record[name] for record in trial.folder.read_metrics() if name in record}


def first(trial: Replicate, name: str, level: float) -> float:
    """The first epoch at whose end a metric is at or above a level; infinite where none is."""
    return next((e for e, value in metric(trial, name).items() if value is not None and value >= level), math.inf)


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def epochs(values: Sequence[float]) -> str:
    """The median of some numbers of epochs, with how many never got there."""
    never = sum(math.isinf(value) for value in values)
    if never == len(values):
        return "never"
    shown = f"{middle([value for value in values if math.isfinite(value)]):g}"
    return f"{shown} ({never} of {len(values)} never)" if never else shown


# The pages


def lenet5(studies: Mapping[str, Study]) -> list[str]:
    signs, logits = studies["lenet5_mnist"], studies["lenet5_logits"]
    right = [("minus", "p-y"), ("plus", "y-p")]
    good = [cell for cell in signs.cells if (cell.levels["update_sign"], cell.levels["residual"]) in right]
    wrong = [cell for cell in signs.cells if cell not in good]
    plus = {
        (loss, lr): find(signs, update_sign="plus", residual="y-p", loss=loss, lr=lr)
        for loss in ("mse", "ce")
        for lr in ("0.1", "0.5")
    }
    relu = {
        (kind, loss, lr): find(logits, model__logits=kind, loss=loss, lr=lr)
        for kind in ("linear", "straight_through_relu")
        for loss in ("mse", "ce")
        for lr in ("0.1", "0.5")
    }
    return [
        "Somebody has a LeNet-5 written in C that learns MNIST well with squared error. They put cross-entropy in "
        "its place, "
        "with the error p − y, and the loss no longer falls; with y − p and a smaller rate it mostly does, but not "
        "always. "
        "What was wrong: the loss, the rate, the sign, or a ReLU on the logits whose mask the backward pass forgets? "
        "(The program is `SnailWalkerYC/LeNet-5_Speed_Up`, from `fan-wenjie/LeNet-5`. It *adds* its update to the "
        "weights.)",
        "## What was run",
        ran(signs, "lenet5_mnist"),
        "### Loss, rate and both signs",
        text.table(signs),
        "![training loss and test accuracy by sign, loss and rate](lenet5_mnist.png)",
        ran(logits, "lenet5_logits"),
        "### With and without the ReLU on the logits",
        text.table(logits),
        "![training loss and test accuracy with linear logits and with a ReLU on them](lenet5_logits.png)",
        "## The answer",
        "1. **The sign decides first.** `w += lr*g` with p − y climbs, and so does `w -= lr*g` with y − p: the "
        f"{sum(len(cell.trials) for cell in wrong)} trials with one wrong sign end at "
        f"{percent(min(min(cell.accuracies) for cell in wrong))} to "
        f"{percent(max(max(cell.accuracies) for cell in wrong))} (verdicts: {verdicts(wrong)}). Two wrong signs "
        "cancel: "
        "the cells `minus, p-y` and `plus, y-p` give the same numbers. With cross-entropy the climb has no upper "
        "end, and the loss overflows "
        "within a few steps; squared error of a softmax cannot exceed 1, so there it looks merely stuck.",
        "2. **Then loss and rate interact.** With the signs right, test accuracy for seeds 0, 1, 2:\n\n"
        + table(["loss", "lr", "test accuracy"], [[loss, lr, each(cell.trials)] for (loss, lr), cell in plus.items()])
        + "\n\nSquared error likes 0.5, the rate that was in the program. Cross-entropy likes 0.1. At 0.5 it is a "
        "gamble on the "
        f'first weights ({verdicts([plus["ce", "0.5"]])}): that is the loss that "sometimes does not go down".',
        "3. **The ReLU on the logits is not the cause.** The same cells, without and with it:\n\n"
        + table(
            ["loss", "lr", "linear logits", "ReLU, no mask backward"],
            [
                [loss, lr, each(relu["linear", loss, lr].trials), each(relu["straight_through_relu", loss, lr].trials)]
                for loss in ("mse", "ce")
                for lr in ("0.1", "0.5")
            ],
        )
        + "\n\nWhat trains without it trains with it; what fails is cross-entropy at 0.5, with either.",
        "So: y − p with `+=` (or p − y with `-=`), and 0.1 for cross-entropy.",
    ]


def xor(studies: Mapping[str, Study]) -> list[str]:
    study, [theirs] = named.by_cell(studies["xor_softmax"], "xor_softmax"), studies["xor_sigmoid"].cells
    lines = []
    for cell in study.cells:
        trials = cell.trials
        outputs = [trial.folder.read_predictions() for trial in trials]
        exact = sum(bool(np.isin(found, (0.0, 1.0)).all()) for found in outputs)
        confidence = [list(metric(trial, "test/confidence").values())[-1] or math.nan for trial in trials]
        losses = [trial.row["train_loss"] for trial in trials]
        spread = f"{min(losses):.4g} to {max(losses):.4g}"
        lines.append(
            [*cell.levels.values(), spread, f"{min(confidence):.6g}", f"{exact} of {len(trials)}", text.verdicts(cell)]
        )
    up = find(study, cell="softmax_ce", residual="p-y", lr="0.001")
    high = find(study, cell="softmax_ce", residual="p-y", lr="0.5")
    cap = [cell for cell in study.cells if cell.levels["cell"] == "softmax_ce_eps" and cell.levels["residual"] == "p-y"]
    low = find(study, cell="softmax_ce", residual="y-p", lr="0.001")
    sigmoid = find(study, cell="one_sigmoid_mse", residual="y-p", lr="0.001")
    fine = [cell for cell in study.cells if cell.levels["residual"] == "y-p" and cell.levels["lr"] != "0.001"]
    return [
        "Somebody's NumPy network learns XOR, they say, with one sigmoid output and squared error. With two "
        "softmax outputs and "
        "cross-entropy the outputs go to exactly 0 and 1, the same for all four patterns, and half are wrong; the "
        "printed loss stops at "
        "11.51. The program sums the gradients of the four patterns, starts from weights in [0, 1), adds `lr*g` to "
        "the weights, and uses "
        "2(y − p) as squared error's derivative but p − y as that of softmax.",
        "## What was run",
        ran(study, "xor_softmax"),
        "Squared error here is ½ Σ (y − p)², whose derivative has no 2: the post's 0.001 is 0.002 with it. So that "
        "one besides:\n\n"
        f"```sh\npython -m ablate {' '.join(arguments('xor_sigmoid'))}\n```",
        text.table(study),
        "![training loss and test accuracy by output, sign and rate](xor_softmax.png)",
        "After the last epoch (loss over seeds; smallest mean confidence; trials whose outputs are all exactly 0 "
        "or 1):",
        table([*study.factors, "training loss", "confidence", "exactly 0 or 1", "verdict"], lines),
        "## The answer",
        "1. **It is the sign.** With `+=` the error has to be y − p. With p − y every step climbs, in every one of the "
        f"{sum(len(cell.trials) for cell in study.cells if cell.levels['residual'] == 'p-y')} trials, and `python "
        "-m ablate.check` says so before training. "
        f"Cross-entropy has no upper end: after 5,000 epochs it is {each_loss(up)} at 0.001 and {each_loss(high)} "
        "at 0.5. The logits move apart "
        f"until the softmax is exactly 0 and 1 in float32, with a confidence of 1.",
        "2. **11.51 is the epsilon's, not the network's.** With 1e-10 added inside the logarithm, −ln 1e-10 = "
        "23.03 is the most a pattern can cost; "
        f"two of four patterns wrong make a mean of 11.51. Here: {', '.join(each_loss(cell) for cell in cap)} at "
        "0.001, 0.1 and 0.5. An epsilon hides "
        "that the loss has no bound.",
        f"3. **The sign alone is not enough at 0.001.** With y − p, cross-entropy is at {each_loss(low)} after "
        "5,000 epochs, where ln 2 = 0.693 is "
        f"knowing nothing (accuracy {each(low.trials)}). Nor does the sigmoid version learn there: "
        f"{each_loss(sigmoid)} with ½ Σ (y − p)², where 0.125 is an "
        f"output of ½ for all (accuracy {each(sigmoid.trials)}); at 0.002, which is the post's rate, "
        f"{each_loss(theirs)} ({each(theirs.trials)}). At 0.1 and 0.5 all trials with y − p learn: {verdicts(fine)}.",
        "So: y − p with `+=`, and a rate of 0.1 or more. Softmax was never at fault.",
    ]


def each_loss(cell: Cell) -> str:
    losses = [trial.row["train_loss"] for trial in cell.trials]
    low, high = f"{min(losses):.4g}", f"{max(losses):.4g}"
    return low if low == high else f"{low} to {high}"


def softmax(studies: Mapping[str, Study]) -> list[str]:
    study = named.by_cell(studies["softmax_mnist"], "softmax_mnist")
    forms: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in study.cells:
        rest = tuple(level for key, level in cell.levels.items() if key != "loss.from_logits")
        forms.setdefault(rest, {})[cell.levels["loss.from_logits"]] = cell
    apart = max(
        abs(a.row["test_accuracy"] - b.row["test_accuracy"])
        for pair in forms.values()
        for a, b in zip(pair["true"].trials, pair["false"].trials, strict=True)
    )
    lines = []
    times: list[tuple[float, Cell, Replicate]] = []
    for rest, pair in forms.items():
        cell = pair["true"]
        reached = [first(trial, "test/accuracy", 0.91) for trial in cell.trials]
        seconds = [
            t.row["seconds"] * e / t.row["epochs"]
            for t, e in zip(cell.trials, reached, strict=True)
            if math.isfinite(e)
        ]
        times += [(second, cell, cell.trials[0]) for second in seconds]
        dead = " · ".join(str(_dead(trial)) for trial in cell.trials) if "relu" in rest else ""
        best = [max(value or 0 for value in metric(trial, "test/accuracy").values()) for trial in cell.trials]
        shown = " · ".join(percent(value) for value in best)
        lines.append(
            [
                *rest,
                each(cell.trials),
                shown,
                epochs(reached),
                f"{middle(seconds):.2g}" if seconds else "–",
                dead,
                text.verdicts(cell),
            ]
        )
    fastest = min(times, key=lambda found: found[0])
    dead_cell = find(study, model__logits="relu", loss="ce", loss__from_logits="true", cell="sgd_2e-1")
    linear_cell = find(study, model__logits="linear", loss="ce", loss__from_logits="true", cell="sgd_2e-1")
    slow = find(study, model__logits="relu", loss="ce", loss__from_logits="true", cell="sgd_1e-3")
    bce = [pair["true"] for rest, pair in forms.items() if rest[1:] == ("relu", "bce")]
    head = [
        "cell",
        "logits",
        "loss",
        "test accuracy at the end",
        "best",
        "epochs to 0.91",
        "seconds to 0.91",
        "dead logits",
        "verdict",
    ]
    return [
        "The author of a framework written by hand (`brandonlyg/cute-dl`) trains one dense layer, 784→10, on "
        "MNIST: 0.928 after 3,699 s at a rate of "
        "0.001. A rate of 0.2 stays at 0.844 from the first epoch; other optimisers take seconds. The layer has a "
        "ReLU on its logits, its softmax adds "
        "1e-8 to the denominator, and each loss can be computed from logits or from probabilities. Which of these "
        "choices matter?",
        "## What was run",
        ran(study, "softmax_mnist"),
        f"Both forms of a loss, from logits and from probabilities, end within {100 * apart:.2f} points of each "
        "other everywhere, so the table has the first only. "
        "Seeds 0 · 1. Seconds are training and evaluation of one trial, trained beside 55 others, up to the first "
        "epoch at or above 0.91; "
        "a dead logit is 0 for all 10,000 test images.",
        table(head, lines),
        "![training loss and test accuracy by optimiser, rate, logits, loss and form](softmax_mnist.png)",
        "## The answer",
        f"1. **The hour is the rate's.** At 0.001 plain gradient descent has {each(slow.trials)} after "
        f"{slow.trials[0].row['epochs']} epochs and is still improving. "
        f"0.91 takes {fastest[0]:.2g} s with `{fastest[1].levels['cell']}` and "
        f"`logits={fastest[1].levels['model.logits']}`, where the post took 3,699 s, on another "
        "machine and to its 0.928. "
        f"Highest accuracy at a trial's end: {percent(max(max(cell.accuracies) for cell in study.cells))}.",
        "2. **The plateau is dead logits.** A ReLU on a logit that is negative for every image passes no gradient: "
        "that class is lost for good. At 0.2 with the ReLU: "
        f"{each(dead_cell.trials)}, with {' · '.join(str(_dead(trial)) for trial in dead_cell.trials)} dead logits; "
        "the first step decides, so it depends on the first weights. "
        f"The same without the ReLU: {each(linear_cell.trials)}. The post's 0.844 at this rate lies in "
        "between: so many classes are lost as logits died.",
        "3. **With binary cross-entropy the ReLU is fatal with every step.** A sigmoid of something that is never "
        'negative is never below ½, so "no" cannot be said: '
        f"{percent(min(min(cell.accuracies) for cell in bce))} to "
        f"{percent(max(max(cell.accuracies) for cell in bce))}. Linear logits train with either loss.",
        "4. **From logits or from probabilities** makes no difference here: at these rates nothing overflows.",
        "So: no ReLU on the logits; then 0.2 with plain gradient descent is the fastest of all.",
    ]


def _dead(trial: Replicate) -> int:
    """Logits that are 0 behind their ReLU for every test image."""
    settings = trial.config["data"]
    loaded = _loaded.setdefault("mnist", data.load(**settings, dtype=np.dtype("float32")))
    weights = trial.folder.read_final_weights()
    logits = loaded.x_test.reshape(len(loaded.x_test), -1) @ weights["dense1.weight"] + weights["dense1.bias"]
    return int((logits.max(axis=0) <= 0).sum())


_loaded: dict[str, Dataset] = {}


def digit_mlp(studies: Mapping[str, Study]) -> list[str]:
    study = named.by_cell(studies["digit_mlp"], "digit_mlp")
    lines = []
    for cell in study.cells:
        trials = cell.trials
        fourth = [(metric(t, "train/accuracy").get(4), metric(t, "test/accuracy").get(4)) for t in trials]
        known = [(a, b) for a, b in fourth if a is not None and b is not None]
        figures = [f"{middle([pair[i] for pair in known]):.1%}" if known else "–" for i in (0, 1)]
        to = [epochs([first(t, "train/accuracy", level) for t in trials]) for level in (0.88, 0.95)]
        large = middle([sum(value or 0 for value in metric(t, "watch/too_large").values()) for t in trials])
        small = middle([sum(value or 0 for value in metric(t, "watch/too_small").values()) for t in trials])
        lines.append(
            [
                *cell.levels.values(),
                *to,
                *figures,
                f"{cell.mean:.1%}",
                f"{large:,.0f}",
                f"{small:,.0f}",
                text.verdicts(cell),
            ]
        )
    post = find(study, bug="missing_divisor", output_lr="0.1", cell="softmax_ce")
    correct = find(study, bug="none", output_lr="0.1", cell="softmax_ce")
    ten = find(study, bug="missing_divisor", output_lr="10", cell="softmax_ce")
    head = [
        *study.factors,
        "epochs to 88 %",
        "epochs to 95 %",
        "train, epoch 4",
        "held out, epoch 4",
        "held out, end",
        "too large",
        "too small",
        "verdict",
    ]
    speed = _fastest(study)
    at_four = [(metric(t, "train/accuracy")[4] or 0, metric(t, "test/accuracy")[4] or 0) for t in post.trials]
    return [
        "A course (`yyc-git/DeepLearningEdu`, lesson 6) builds a 784-30-10 network for digits, one image at a "
        "time: weights in [0, 1), sigmoid hidden units on net/78.5, "
        "hidden rate 10. It asks which trains faster, sigmoids with squared error or softmax with cross-entropy, "
        "finds that the output layer needs a rate of 0.1 where 10 fails, and "
        "claims 95 % in four epochs. Its backward pass leaves out the 1/78.5. Is the claim right, and what is the "
        "missing factor worth?",
        "## What was run",
        ran(study, "digit_mlp"),
        "Epochs to a *training* accuracy (over the images as they were met in the epoch), medians over the seeds; "
        "held out: 10,000 test images. Too large, too small: "
        "updates of the output layer above 1 and below 1e-7, the course's own warnings.",
        table(head, lines),
        "![training loss and test accuracy by output, loss, mistake and rate of the output layer](digit_mlp.png)",
        "## The answer",
        "1. **95 % in four epochs is right within a point, and of the training images.** With softmax, "
        "cross-entropy, an output rate of 0.1 and the factor missing, as in the course: "
        f"{' · '.join(percent(a) for a, _ in at_four)} in epoch 4 for seeds 0, 1, 2. Held out, the same networks "
        f"have {' · '.join(percent(b) for _, b in at_four)}, and after "
        f"{post.trials[0].row['epochs']} epochs {each(post.trials)}: 1,000 images are soon known by heart.",
        f"2. **Which trains faster depends on the rate of the output layer more than on the loss.** {speed}",
        f"3. **An output rate of 10 is too large for softmax**: {each(ten.trials)} held out in the end with the "
        f"factor missing ({text.verdicts(ten)}).",
        "4. **The missing factor acts as a hidden rate of 785.** The check before training names it: the gradient "
        "of the hidden layer is 78.5 times too large. Here that happens to help: "
        f"softmax at 0.1 needs {epochs([first(t, 'train/accuracy', 0.95) for t in post.trials])} epochs to 95 % "
        f"with the mistake, {epochs([first(t, 'train/accuracy', 0.95) for t in correct.trials])} without. "
        "A wrong derivative that helps is a rate in disguise; it is found by comparing the hidden "
        "layer's gradient with numbers, and by nothing else.",
    ]


def _fastest(study: Study) -> str:
    """For each output with its loss the best setting by epochs to 95 %, in words."""
    words = []
    for name in study.factors["cell"]:
        scored = [
            (cell, [first(t, "train/accuracy", 0.95) for t in cell.trials])
            for cell in study.cells
            if cell.levels["cell"] == name
        ]
        cell, best = min(scored, key=lambda item: middle(item[1]))
        rest = ", ".join(f"`{key}={level}`" for key, level in cell.levels.items() if key != "cell")
        words.append(f"`{name}` reaches 95 % in {epochs(best)} epochs at its best ({rest})")
    return "; ".join(words) + "."


def ran(study: Study, preset: str) -> str:
    """The command, the facts, and on what."""
    wall = json.loads((study.trials[0].folder.path.parent / "wall.json").read_text(encoding="utf-8"))
    needs = "" if preset == "xor_softmax" else " (MNIST is looked for in `$ABLATE_DATA/mnist`)"
    n = sorted({len(cell.trials) for cell in study.cells})
    told = f"{named.described(preset)}\n\n" if "cell" in study.factors else ""
    return (
        f"```sh\npython -m ablate {' '.join(arguments(preset))}\n```\n\n{text.facts(study)}\n\n{told}"
        f"The command{needs} took {wall['seconds']:.0f} s on {wall['machine']}; "
        f"n = {n[0]} seeds a cell."
    )


TITLES: Mapping[str, tuple[str, Sequence[str], Callable[[Mapping[str, Study]], list[str]]]] = {
    "lenet5_mnist": ("LeNet-5 whose loss sometimes does not go down", ("lenet5_mnist", "lenet5_logits"), lenet5),
    "xor_softmax": ("XOR whose softmax goes to exactly 0 and 1", ("xor_softmax", "xor_sigmoid"), xor),
    "softmax_mnist": ("One dense layer that takes an hour, or stays at 0.844", ("softmax_mnist",), softmax),
    "digit_mlp": ("95 % in four epochs, with a factor missing", ("digit_mlp",), digit_mlp),
}


def write(page: str, runs: Path) -> None:
    """Write one page and its pictures from finished runs."""
    title, presets, body = TITLES[page]
    studies = {}
    PAGES.mkdir(parents=True, exist_ok=True)
    for preset in presets:
        write_report([runs / preset], runs / preset)
        studies[preset] = cells.read([runs / preset])
        if preset not in RUNS:
            shutil.copyfile(SweepFolder(runs / preset).curves, PAGES / f"{preset}.png")
    made = f"<!-- Made by `python -m benchmarks.posts {page}` from real runs. Change that file, not this page. -->"
    again = f"Made by `python -m benchmarks.posts {page}`, which repeats the runs and writes every figure on this page."
    (PAGES / f"{page}.md").write_text("\n\n".join([made, f"# {title}", *body(studies), again]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posts", description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"any of {', '.join(TITLES)} (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/posts"), help="where the runs are kept")
    parser.add_argument("--reuse", action="store_true", help="take the runs that are there")
    given = parser.parse_args()
    if wrong := [page for page in given.pages if page not in TITLES]:
        parser.error(f"{wrong[0]}: no such page; choose from {', '.join(TITLES)}")
    for page in given.pages or TITLES:
        for preset in TITLES[page][1]:
            folder = given.runs.absolute() / preset
            if not (given.reuse and (folder / "wall.json").is_file()):
                run(preset, folder)
        write(page, given.runs.absolute())
        print(PAGES / f"{page}.md")


if __name__ == "__main__":
    main()
