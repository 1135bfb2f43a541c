"""Writes docs/reports.md: public reports of networks that do not train, and what ablate says of each.

python -m docs.studies.reports

The inputs are made by `report_inputs`, the losses stand in `report_losses`, the text in `templates/reports.md.j2`.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import ablate
from ablate.commands import explain
from ablate.diagnosis.advice import Known, advice, changes
from ablate.diagnosis.rehearsal import rehearse
from ablate.errors import ConfigError
from ablate.execution import sweep
from ablate.execution.prepare import prepare
from ablate.records.sweep_folder import SweepFolder
from benchmarks.templates import render
from docs.studies import report_inputs

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reports.md"
TEMPLATE = Path(__file__).resolve().parent / "templates" / "reports.md.j2"
QUIET = ("workers=1", "tracking=none")
ADVISES = " → "


@dataclass(frozen=True)
class Report:
    """What somebody asked in public, retold.

    `arguments` are those of the command, beside `QUIET`; `right` is the cause as it was answered or found; an answer is
    right if it contains all of the patterns `expected` and none of `never`. `address` is where it was asked.
    """

    situation: str
    arguments: str
    right: str
    expected: Sequence[str]
    never: Sequence[str] = ()
    address: str = ""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.arguments)

    @property
    def command(self) -> str:
        return f"python -m ablate {self.arguments}"

    def is_answered(self, said: str) -> bool:
        """Whether this is the right answer."""
        has = [re.search(pattern, said, re.IGNORECASE) is not None for pattern in (*self.expected, *self.never)]
        return all(has[: len(self.expected)]) and not any(has[len(self.expected) :])


def _custom(name: str) -> str:
    return f"model=mlp loss=custom loss.target=docs.studies.report_losses.{name}"


SCALE = ["inputs?|pixels|columns", r"data\.normalize=(unit|per_\w+)"]
MLP = "model=mlp model.activation=relu"
OTHER_SAMPLES = "other samples|depends on the batch|whole batch"
TWICE = r"softmax of (the|a) softmax|softmax twice|twice through (the|a) softmax|second softmax|softmax.{0,40}already"

REPORTS = [
    Report(
        "two classes, 96 % of the rows in one, easily told apart",
        f"data=npz data.path=rare_class.npz {MLP}",
        "nothing is wrong: every class is recognised",
        ["^trained"],
        ["collapsed"],
    ),
    Report(
        "pixels from 0 to 255 as they are",
        f"data=npz data.path=pixels.npz {MLP}",
        "the scale of the inputs",
        SCALE,
    ),
    Report(
        "the same, a convolutional network",
        "data=npz data.path=pixels.npz model=lenet5 epochs=4 data.train_limit=200",
        "the scale of the inputs",
        SCALE,
    ),
    Report(
        "the same, softmax regression with the logarithm of p",
        "data=npz data.path=pixels.npz model=softmax_regression loss.from_logits=false",
        "the scale of the inputs",
        SCALE,
    ),
    Report(
        "a table of houses: areas in thousands beside counts",
        f"data=npz data.path=columns.npz {MLP} 'model.hidden=[32,32]' model.units=1 loss=bce",
        "columns of unlike scale; each is to be standardised",
        [r"data\.normalize=per_feature"],
    ),
    Report(
        "labels from 1 to 10",
        "data=npz data.path=labels_from_1.npz model=mlp",
        "ten classes, not eleven; to be said in a line",
        [r"1\.\.10", "0..9|10 classes|ten classes"],
    ),
    Report(
        "images of shape (N, 8, 8, 1)",
        "data=npz data.path=channels_last.npz model=lenet5 epochs=4 data.train_limit=200",
        "the channel is the last axis",
        [r"\(N, H, W, C\)|channels.last"],
    ),
    Report(
        "cross-entropy, the minus forgotten in the value alone",
        _custom("MinusForgotten"),
        "the value is the negative of cross-entropy; the gradient is right",
        ["negative of"],
    ),
    Report(
        "a softmax that divides by sums over the batch",
        _custom("OverTheBatch"),
        "the axis: a sample's value depends on the other samples",
        [OTHER_SAMPLES, "axis"],
        ["slope of value"],
    ),
    Report(
        "a softmax that divides by one sum over everything",
        _custom("OverAll"),
        "the axis: a sample's value depends on the other samples",
        [OTHER_SAMPLES, "axis"],
        ["slope of value"],
    ),
    Report(
        "a Dice loss, one value for the batch",
        _custom("Dice"),
        "it is meant for the batch, and its gradient is not to blame",
        [OTHER_SAMPLES],
        ["wrong derivative", "mend gradient"],
    ),
    Report(
        "a loss written for probabilities",
        _custom("OfProbabilities"),
        "it gets logits: apply the softmax first",
        ["logits", "softmax"],
    ),
    Report(
        "cross-entropy of a softmax of the softmax",
        _custom("TwiceSoftmax"),
        "one softmax too many",
        [TWICE],
    ),
    Report(
        "the same, with the gradient of one of them",
        _custom("TwiceSoftmaxShort"),
        "one softmax too many; the value's own gradient trains no better",
        [TWICE],
    ),
    Report(
        "the value of the squared error, the gradient of cross-entropy",
        _custom("SquaredAndEntropy"),
        "two losses are mixed: both readings, the one that trains first in front",
        ["loss=ce", "loss=mse", "first"],
    ),
    Report(
        "a right loss that computes in float32",
        _custom("InFloat32"),
        "nothing is wrong",
        ["^(trained|slow|plateau)"],
        ["another loss", "wrong", "mend"],
    ),
    Report(
        "XOR with two hidden units, five seeds",
        "-m data=xor model=mlp 'model.hidden=[2]' lr=3 epochs=500 'seed=range(0,5)'",
        "a local minimum: another seed, another start or more units",
        ["→ (seed=|init)"],
    ),
    Report(
        "weights that are nearly 0, all alike",
        "model=mlp init=normal init.scale=1e-30",
        "the start",
        ["init=", "alike|equal|the same|tiny|so small|symmetr"],
        [r"^[^→]*→ a (smaller|larger) (learning )?rate"],
    ),
    Report(
        "weights of 0",
        "model=mlp init=normal init.scale=0",
        "zero weights can be tried: init=zeros",
        ["init=zeros"],
    ),
    Report(
        "weight decay, as other programs name it",
        "optimizer.weight_decay=0.01 model=softmax_regression epochs=3",
        "the key exists, or a line says that it does not",
        ["^(trained|slow|plateau)|no such key"],
        ["did you mean"],
    ),
    Report(
        "dropout",
        "model=mlp model.dropout=0.2 epochs=3",
        "the key exists, or a line says that it does not",
        ["^(trained|slow|plateau)|no such key"],
        ["did you mean"],
    ),
    Report(
        "the α of the focal loss, without that loss",
        "loss.alpha=0.25 model=softmax_regression",
        "the key belongs to the focal loss",
        ["loss=focal"],
        ["did you mean"],
    ),
    Report(
        "the margin of the hinge loss, without that loss",
        "loss.margin=2 model=softmax_regression",
        "the key belongs to the hinge loss",
        ["hinge"],
        ["did you mean"],
    ),
    Report(
        "MNIST's files unpacked, named train-images.idx3-ubyte, below MNIST/raw",
        "data=mnist data.dir=idx model=softmax_regression lr=0.5",
        "they are read",
        ["^(trained|slow|plateau)"],
    ),
    Report(
        "a CSV file with the label in its first column",
        "data=csv data.path=label_first.csv data.label=label data.normalize=unit model=softmax_regression",
        "it is read",
        ["^(trained|slow|plateau)"],
    ),
]

FURTHER = [
    Report(
        "digits, 15 sigmoid units and ten sigmoid outputs, squared error, weights drawn from 0 to 1: an error of 0.5",
        "model=mlp model.hidden=15 model.activation=sigmoid loss=mse model.output=sigmoid lr=0.5 init=uniform01"
        " data.normalize=unit",
        "the weights are all positive: drawn from −0.5 to 0.5 it trains",
        [r"init=|initial weights|the start"],
        [r"^[^→]*→ a (smaller|larger) (learning )?rate"],
        "https://stats.stackexchange.com/questions/286424/neural-network-success-after-changing-weights-initialization-strategy-whats",
    ),
    Report(
        "a convolutional network for two classes that ends in one softmax unit answers the same for everything",
        "data=npz data.path=two_classes.npz model=mlp model.units=1 model.output=softmax loss=ce",
        "the softmax of one number is always 1: a sigmoid, or two outputs",
        ["sigmoid"],
        ["did you mean"],
        "https://stats.stackexchange.com/questions/481881/convolutional-neural-network-fails-even-when-given-answer",
    ),
    Report(
        "the ten digits, pixels from 0 to 255, 64 ReLU units and one sigmoid output with binary cross-entropy: 11 %",
        f"data=npz data.path=pixels.npz {MLP} model.hidden=64 model.units=1 loss=bce optimizer=adam lr=0.001",
        "one sigmoid output tells two classes apart, not ten: ten outputs and a softmax",
        [r"units=1", "10 classes|two classes|2 classes"],
        ["did you mean"],
        "https://datascience.stackexchange.com/questions/38604/too-low-accuracy-on-mnist-dataset-using-a-neural-network",
    ),
    Report(
        "XOR without a hidden layer: both outputs end at 0.5",
        "data=xor model=softmax_regression loss=ce lr=0.5 epochs=200",
        "one layer tells apart only what a line separates: a hidden layer is missing",
        ["hidden layer|model=mlp"],
        [],
        "https://ai.stackexchange.com/questions/27010/why-does-my-neural-network-to-solve-the-xor-problem-always-output-0-5",
    ),
    Report(
        "softmax regression on pixels from 0 to 255, weights of deviation 1 / sqrt(784): cross-entropy is infinite",
        "data=mnist data.dir=idx data.normalize=none model=softmax_regression loss.from_logits=false init=lecun",
        "the inputs are not scaled; with scaled ones the author was content",
        SCALE,
        [],
        "https://forums.fast.ai/t/cross-entropy-error-log-1-1-inf/1441",
    ),
    Report(
        "a line y = 2 x through x = 0 to 199, one unit, squared error, rate 0.001, one row at a time: NaN",
        "data=npz data.path=line.npz data.task=regression model=softmax_regression loss=mse lr=0.001 batch_size=1"
        " epochs=1",
        "the rate is too high for inputs of that size",
        [r"→ lr=0\.0*1\b"],
        [],
        "https://github.com/keras-team/keras/issues/3040",
    ),
    Report(
        "prices of houses up to 755,000, squared error, rate 0.1: NaN from the first epoch",
        f"data=npz data.path=prices.npz data.task=regression {MLP} loss=mse lr=0.1",
        "the targets are large, so their squared errors explode: scale them or take their logarithm",
        ["target", "scale|divide|normali|logarithm|deviation|large"],
        [],
        "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
    ),
    Report(
        "a network of one's own on digits, sigmoids, momentum, rate 4, one row at a time: NaN",
        "model=mlp model.activation=sigmoid optimizer=momentum lr=4 batch_size=1 epochs=1 data.train_limit=500",
        "the rate is too high: below 1 it trains",
        [r"→ (a smaller (learning )?rate|lr=[01]?\.\d)"],
        [],
        "https://github.com/lionelmessi6410/Neural-Networks-from-Scratch/issues/2",
    ),
    Report(
        "a curve below 0 to be learnt by one sigmoid unit with squared error",
        "data=npz data.path=below_0.npz data.task=regression model=softmax_regression model.output=sigmoid loss=mse"
        " optimizer=adam lr=0.01 epochs=100",
        "a sigmoid gives 0 to 1, and no target lies there",
        ["sigmoid", "identity|0 to 1|0 and 1|between 0"],
        [],
        "https://stackoverflow.com/a/58887284",
    ),
    Report(
        "a hidden layer added to a softmax regression that worked, all weights 0: 11 %",
        f"{MLP} model.hidden=100 init=zeros lr=0.5",
        "weights of a hidden layer must not start alike",
        ["init=", "alike|equal|the same|zero|symmetr"],
        [r"^[^→]*→ a (smaller|larger) (learning )?rate"],
        "https://exchangetuts.com/why-adding-one-more-layer-to-the-tensorflow-simple-neural-net-example-breaks-it-1641643924769364",
    ),
]

Run = Callable[[Path, Sequence[str]], str | Path]


def in_memory(folder: Path, words: Sequence[str]) -> str | Path:
    """Run a command's trials in this process; the folder must be the current one. See `Run`."""
    try:
        trials = ablate.compose(*(word for word in words if word != "-m"), *QUIET)
        prepared = prepare(folder / "sweep", trials)
    except ConfigError as error:
        return str(error)
    sweep.run(prepared, Console(file=io.StringIO()))
    return folder / "sweep"


def as_command(folder: Path, words: Sequence[str]) -> str | Path:
    """Run the command as its reader does: gives the line of its refusal, or the folder of its sweep."""
    before = set(folder.glob("runs/20*"))
    done = subprocess.run(
        [sys.executable, "-m", "ablate", *words, *QUIET],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 2:
        return done.stderr.strip().removeprefix("ablate: ")
    [made] = set(folder.glob("runs/20*")) - before
    return made


def answer(report: Report, folder: Path, run: Run) -> str:
    """What the author would read first: the refusal, or verdict and reason, the notices, and the first advice."""
    made = run(folder, report.words)
    if isinstance(made, str):
        return made
    known = [explain.read(trial.path) for trial in SweepFolder(made).trials()]
    # Of several seeds the first that failed.
    first = next((one for one in known if one.row["verdict"] != "trained"), known[0])
    verdict, why = first.row["verdict"], first.row["why"]
    said, advised = " ".join([f"{verdict}: {why}", *(f"({notice})" for notice in first.notices)]), _advised(first)
    # What a check has found is reason and advice.
    return said if verdict == "trained" or advised[:40] in why else f"{said}{ADVISES}{advised}"


def _advised(known: Known) -> str:
    """The first advice of `python -m ablate.explain`, which tries what it advises if that is possible."""
    wanted = changes(known)
    try:
        tried = rehearse(known.config, wanted) if wanted else None
    except ConfigError:
        tried = None
    return advice(known, tried)[0]


HEAD = ["report", "command", "what it says", "right"]


def rows(reports: Sequence[Report], said: Sequence[str]) -> list[list[str]]:
    """The table of some reports and their answers."""
    return [
        [
            f"[{report.situation}]({report.address})" if report.address else report.situation,
            f"`{report.command}`".replace("|", "\\|"),
            text.replace("|", "\\|").replace("<", "&lt;"),
            f"{'**yes**' if report.is_answered(text) else '**no**'}: {report.right}",
        ]
        for report, text in zip(reports, said, strict=True)
    ]


def main() -> None:
    """Make the inputs, run every command, and write the page."""
    argparse.ArgumentParser(
        prog="python -m docs.studies.reports", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    # `explain` tries its advice on the trial's data, which are named as the command named them.
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        folder = Path(scratch)
        report_inputs.write(folder)
        said = {
            name: [answer(report, folder, as_command) for report in reports]
            for name, reports in {"shared": REPORTS, "further": FURTHER}.items()
        }
    told = {
        "head": HEAD,
        "shared": rows(REPORTS, said["shared"]),
        "further": rows(FURTHER, said["further"]),
        "answered": {
            name: sum(report.is_answered(text) for report, text in zip(reports, said[name], strict=True))
            for name, reports in {"shared": REPORTS, "further": FURTHER}.items()
        },
    }
    PAGE.write_text(render(TEMPLATE, **told), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
