"""`docs/bugs.md` is true: the zoo trained again, its guesses and verdicts beside those of the page."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Done, cell_of, cells_of

from ablate.commands import explain
from ablate.diagnosis.advice import advice
from ablate.problem.mistakes import MISTAKES

PAGE = (ROOT / "docs" / "bugs.md").read_text(encoding="utf-8")
# What a person expects of each: seldom anything else over five seeds.
EXPECTED = {
    "right": "trained",
    "update_sign_plus": "ascending",
    "residual_y-p": "ascending",
    "diagonal_jacobian": "diverged",
    "missing_activation_derivative": "slow",
    "missing_divisor": "slow",
    "sum_for_mean": "collapsed",
    "bias_gradient": "trained",
    "stale_gradients": "collapsed",
    "unshifted_softmax": "diverged",
    "double_softmax": "collapsed",
    "swapped_labels": "plateau",
    "logits_relu": "slow",
    "logits_straight_through": "trained",
}


def told() -> dict[str, list[str]]:
    """The page's table: by mistake, the other columns."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_mistake_has_its_place() -> None:
    cells = cells_of("bugs")
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert list(told()) == list(cells) == list(EXPECTED)
    assert cells_of("bugs_small") == cells
    assert {name for name, values in cells.items() if values == {"bug": name}} == set(MISTAKES.names()) - {"none"}
    assert headings == list(cells)[1:]
    assert (ROOT / "docs" / "bugs.png").stat().st_size < 40_000


def test_guesses_and_verdicts_are_those_of_the_page(ablate: Callable[..., Done], tmp_path: Path) -> None:
    done = ablate("experiment=bugs_small", "tracking=none", "workers=1")
    assert done.code == 0, done.err
    [sweep] = (tmp_path / "runs").iterdir()
    found = {}
    for folder in sweep.glob("*/.hydra"):
        trial = explain.read(folder.parent)
        found[cell_of("bugs", trial.row)] = trial
    page = told()
    assert set(found) == set(page)
    for name, trial in found.items():
        guess, error, cosine, verdicts, _ = page[name]
        check = trial.check
        assert check is not None
        assert (check.guess or ("left out" if check.left_out else "nothing")) == guess, name
        assert trial.row["verdict"] == EXPECTED[name], name
        assert verdicts.startswith(EXPECTED[name]), f"{name}: {verdicts}"
        if check.gradient_error is not None:
            assert check.descent_cosine == pytest.approx(float(cosine), abs=0.01)
            assert (check.gradient_error > 1e-3) == (float(error) > 1e-3)
    advised = advice(found["double_softmax"])
    assert "bug=double_softmax on purpose" in advised[0]
