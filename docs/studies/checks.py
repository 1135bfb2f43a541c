"""How well the checks before training do: known mistakes named, and alarms on correct configurations.

    python -m docs.studies.checks                        # prints the tables
    python -m docs.studies.checks --into docs/checks.md  # and puts them into that page

Every mistake that a gradient check can see is made on purpose, over seeds, models and losses, and the guess compared
with the truth; so are the slips of `docs.studies.slips`, in losses of one's own. Then correct configurations are drawn
at random, the losses of `docs.studies.right_losses` are tried, and whatever the checks say of them is an alarm.
"""

import argparse
import datetime
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

import ablate
from ablate.diagnosis.checks import Check, check
from ablate.errors import ConfigError
from ablate.problem.optimizers import OPTIMIZERS
from ablate.trials.prepared import PreparedTrial, engine
from benchmarks import marks
from benchmarks.templates import render
from docs.studies import right_losses, slips

TEMPLATE = Path(__file__).resolve().parent / "templates" / "checks.md.j2"

SEEDS, CORRECT = 20, 200
MISTAKES = (
    "wrong sign",
    "diagonal_jacobian",
    "missing_activation_derivative",
    "missing_divisor",
    "sum_for_mean",
    "bias_gradient",
    "stale_gradients",
)
MODELS = ("lenet5", "mlp", "softmax_regression")
LOSSES = (
    *("ce", "mse", "mae", "focal", "label_smoothing", "bce", "hinge", "mse model.output=sigmoid"),
    *("squared_hinge", "kl loss.smoothing=0.1", "reverse_kl", "mae model.output=sigmoid"),
    "focal model.output=sigmoid loss.alpha=0.25",
)
ACTIVATIONS = ("sigmoid", "relu", "tanh", "leaky_relu", "elu", "selu", "softplus", "softsign", "softmax")
# Some gradients are that of another loss of ablate at once: p - y is mse's without its Jacobian, and ce's.
CUSTOM: dict[str, tuple[str, ...]] = {
    "sign": ("wrong sign",),
    "factor 2": ("scale factor",),
    "no Jacobian": ("missing_jacobian", "two losses"),
    "diagonal Jacobian": ("diagonal_jacobian",),
    "Jacobian twice": ("jacobian_twice", "two losses"),
    "divided by N": ("factor of samples",),
    "times N": ("factor of samples",),
    "one class forgotten": ("wrong derivative",),
}


@dataclass(frozen=True)
class Planted:
    """A command line, what its check should say (nothing: all is right), and what the mistake is called in a table."""

    words: tuple[str, ...]
    truths: tuple[str, ...] = ()
    kind: str = ""
    # It is to be refused before anything starts, in these words.
    refusal: str = ""


@dataclass(frozen=True)
class Case:
    """A configuration, what is wrong with it, and what the check said."""

    planted: Planted
    found: Check
    seconds: float

    @property
    def named(self) -> bool:
        return self.found.guess in self.planted.truths

    @property
    def has_alarm(self) -> bool:
        return self.found.guess is not None or self.found.left_out is not None


class Drawn:
    """Draws the parts of a configuration at random."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def one_of(self, *choices: str) -> list[str]:
        """One of the choices, each words of a command line."""
        return choices[int(self.rng.integers(len(choices)))].split()

    def model(self, name: str, divided: bool = False) -> list[str]:
        words = [f"model={name}", *self.one_of("data=digits", "data=digits", "data=xor" if name != "lenet5" else "")]
        if name == "mlp":
            words += self.one_of("model.hidden=[30]", "model.hidden=[16,12]", "model.hidden=7")
            words += self.one_of(*(f"model.activation={function}" for function in ACTIVATIONS))
            words += self.one_of(
                *([] if divided else [""]), "model.preactivation_divisor=78.5", "model.preactivation_divisor=3"
            )
        if "data=xor" not in words:
            words += self.one_of(
                "data.normalize=per_image", "data.normalize=unit", "data.normalize=per_feature", "data.normalize=none"
            )
        return words

    def start(self) -> list[str]:
        normal = ("init=normal init.scale=0.01", "init=normal init.scale=1")
        starts = (f"init={name}" for name in ("glorot_uniform", "uniform01", "he", "lecun", "uniform", "orthogonal"))
        return [*self.one_of(*starts, *normal), *self.one_of("", "init.bias=same"), f"seed={self.rng.integers(1000)}"]

    def loss(self, name: str) -> list[str]:
        naive = "loss.from_logits=false"
        return [
            f"loss={name}".split()[0],
            *name.split()[1:],
            *self.one_of("", "", naive, f"{naive} loss.eps_log=1e-10"),
        ]


def prepared(words: Sequence[str]) -> PreparedTrial:
    """The one trial of a command line, on its data. Raises ConfigError."""
    [trial] = ablate.compose(*filter(None, words))
    return ablate.prepare(trial.settings)


def examined(planted: Planted) -> Case | None:
    """The check of a configuration; None where it is refused and should not be. The time is that of the processor."""
    try:
        trial = prepared(planted.words)
    except ConfigError as error:
        if not planted.refusal:
            return None
        said = planted.refusal if planted.refusal in str(error) else "refused"
        return Case(planted, Check(guess=said), 0.0)
    with threadpool_limits(1, user_api="blas"):
        start = time.process_time()
        found = check(trial, trial.settings.seed)
        return Case(planted, found, time.process_time() - start)


def all_examined(every: Iterable[Planted]) -> list[Case]:
    """The checks of configurations, by all cores."""
    cases = Parallel(n_jobs=os.cpu_count())(delayed(examined)(planted) for planted in every)
    return [case for case in cases if case is not None]


def mistaken(seeds: int) -> Iterator[Planted]:
    """Every mistake that can be made, in every model, with every loss, `seeds` times."""
    for truth in MISTAKES:
        for number, model in enumerate(MODELS):
            for place, loss in enumerate(LOSSES):
                for seed in range(seeds):
                    drawn = Drawn(MISTAKES.index(truth), number, place, seed)
                    words = [*drawn.model(model, truth == "missing_divisor"), *drawn.start(), *drawn.loss(loss)]
                    wrong = drawn.one_of("update_sign=plus", "residual=y-p")
                    words += wrong if truth == "wrong sign" else [f"bug={truth}"]
                    yield Planted(tuple(words), (truth,), truth)


def custom(seeds: int) -> Iterator[Planted]:
    """A user's own loss with a wrong gradient."""
    for place, (mistake, truths) in enumerate(CUSTOM.items()):
        for number, loss in enumerate(("ce", "mse", "sigmoid_mse")):
            if loss == "sigmoid_mse" and mistake == "diagonal Jacobian":
                continue  # a sigmoid's Jacobian is diagonal
            for seed in range(seeds):
                drawn = Drawn(100, place, number, seed)
                words = [*drawn.model(MODELS[seed % 3]), *drawn.start(), *_own(loss, mistake)]
                yield Planted(tuple(words), truths, mistake)


def _own(loss: str, mistake: str) -> list[str]:
    named = ["loss=custom", "loss.target=docs.studies.mistaken.Mistaken"]
    return [*named, f"+loss.args.loss={loss}", f"+loss.args.mistake={mistake}"]


def slipped(seeds: int) -> Iterator[Planted]:
    """Every slip in a loss of one's own, in every model, `seeds` times."""
    for place, (name, truths) in enumerate([*slips.SLIPS.items(), *slips.REFUSED.items()]):
        refusal = truths if isinstance(truths, str) else ""
        for number, model in enumerate(MODELS):
            for seed in range(seeds):
                drawn = Drawn(300, place, number, seed)
                words = [*drawn.model(model), *drawn.start(), "loss=custom", f"loss.target=docs.studies.slips.{name}"]
                kind = refusal or " / ".join(truths)
                yield Planted(tuple(words), (refusal,) if refusal else tuple(truths), kind, refusal)


def right(seeds: int) -> Iterator[Planted]:
    """Every right loss of one's own, in every model, `seeds` times."""
    for place, name in enumerate(right_losses.ALL):
        for number, model in enumerate(MODELS):
            for seed in range(seeds):
                drawn = Drawn(400, place, number, seed)
                words = [*drawn.model(model), *drawn.start(), *drawn.one_of("dtype=float32", "dtype=float64")]
                target = f"loss.target=docs.studies.right_losses.{name}"
                yield Planted((*words, "loss=custom", target), kind=name)


def correct(count: int) -> Iterator[Planted]:
    """Configurations with nothing wrong, drawn at random from everything there is to choose; more than are needed."""
    for seed in range(2 * count):
        drawn = Drawn(200, seed)
        losses = [drawn.loss(name) for name in LOSSES]
        own = [_own(name, "none") for name in ("ce", "mse", "sigmoid_mse")]
        words = [
            *drawn.model(MODELS[int(drawn.rng.integers(3))]),
            *drawn.start(),
            *[*losses, *own][int(drawn.rng.integers(len(losses) + len(own)))],
            *drawn.one_of(*(f"optimizer={name}" for name in OPTIMIZERS.names())),
            *drawn.one_of("", "optimizer.weight_decay=0.01", "optimizer.clip_norm=1", "loss.class_weights=balanced"),
            *drawn.one_of("lr=0.1", "lr=0.5", "lr=0.001", "lr=10"),
            *drawn.one_of("", "output_lr=0.01", "output_lr=1"),
            *drawn.one_of("", "loss.reduction=sum"),
            *drawn.one_of("dtype=float32", "dtype=float64"),
            *drawn.one_of("", "", "model.logits=relu", "model.units=1"),
            *drawn.one_of("", "update_sign=plus residual=y-p"),
        ]
        yield Planted(tuple(words))


def is_overflow(case: Case) -> bool:
    """Whether what was found is no mistake in a gradient but a loss that is not finite at the start, and truly so."""
    if case.found.guess != "not finite":
        return False
    trial = prepared(case.planted.words)
    with threadpool_limits(1, user_api="blas"):
        return not np.isfinite(engine([trial]).evaluate(200).loss[0])


@dataclass(frozen=True)
class Guesses:
    """How often mistakes were named, by model, and what was said instead."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def guesses(cases: Sequence[Case], label: str) -> Guesses:
    """A row for each kind of mistake, and one for all."""
    by_kind: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_kind[case.planted.kind].append(case)
    rows = []
    for name, mine in [*by_kind.items(), ("**all**", list(cases))]:
        shares = [_share([case for case in mine if f"model={model}" in case.planted.words]) for model in MODELS]
        others = Counter(str(case.found.guess) for case in mine if not case.named)
        said = ", ".join(f"{guess} ({count})" for guess, count in others.most_common()) or "–"
        rows.append([name, str(len(mine)), _share(mine), *shares, said])
    return Guesses([label, "n", "named", *MODELS, "said instead"], rows)


def _share(cases: Sequence[Case]) -> str:
    return f"{sum(case.named for case in cases) / len(cases):.1%}" if cases else "–"


def alarms(cases: Sequence[Case]) -> dict[str, Any]:
    """What was said of correct configurations."""
    said = [case for case in cases if case.found.guess is not None]
    false = [case for case in said if not is_overflow(case)]
    return {
        "configurations": len(cases),
        "false": false,
        "overflows": len(said) - len(false),
        "left_out": sum(case.found.left_out is not None for case in cases),
        "error": max((case.found.gradient_error or 0.0 for case in cases if case.found.guess is None), default=0.0),
    }


def times(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """By model how long a check takes, in seconds of the processor."""
    mine = {model: [case.seconds for case in cases if f"model={model}" in case.planted.words] for model in MODELS}
    return [
        {"model": model, "median": statistics.median(each), "most": max(each)} for model, each in mine.items() if each
    ]


def main() -> None:
    """Run all, print the tables, and put them into a page where one is named."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.studies.checks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, help="a page with the lines <!-- tables --> and <!-- end of tables -->")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--correct", type=int, default=CORRECT)
    given = parser.parse_args()
    every = [mistaken(given.seeds), custom(given.seeds), slipped(given.seeds), right(-(-given.seeds // 4))]
    known, own, slip, styles = (all_examined(each) for each in every)
    fine = all_examined(correct(given.correct))[: given.correct]
    text = render(
        TEMPLATE,
        date=datetime.date.today(),
        cores=os.cpu_count(),
        seeds=given.seeds,
        losses=len(LOSSES),
        styles=len(right_losses.ALL),
        times=times([*known, *own, *slip, *styles, *fine]),
        known=guesses(known, "mistake made"),
        own=guesses(own, "mistake in a loss of one's own"),
        slips=guesses(slip, "slip in a loss of one's own"),
        alarms=alarms(fine),
        style_alarms=alarms(styles),
    )
    print(text)
    for case in [case for case in [*known, *own, *slip] if not case.named][:60]:
        print("  ", case.planted.kind, "|", case.found.guess, "|", " ".join(case.planted.words))
    if given.into:
        marks.put(given.into, "tables", text)


if __name__ == "__main__":
    main()
