"""Pages say what their templates say, templates need every name, and studies and races use what is public only."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from jinja2 import UndefinedError, nodes

from benchmarks import marks, templates
from docs.studies import checks, parity, right_losses, watching

DOCS, STUDIES = ROOT / "docs", ROOT / "docs" / "studies"
TEMPLATES = STUDIES / "templates"
PAGES = {
    **{f"{name}.md.j2": DOCS / "posts" / f"{name}.md" for name in ("digit_mlp", "lenet5_mnist", "softmax_mnist")},
    "xor_softmax.md.j2": DOCS / "posts" / "xor_softmax.md",
    "bugs.md.j2": DOCS / "bugs.md",
    "checks.md.j2": DOCS / "checks.md",
    "watching.md.j2": DOCS / "checks.md",
    "architecture.md.j2": DOCS / "architecture.md",
    "reports.md.j2": DOCS / "reports.md",
    "benchmarks.md.j2": DOCS / "benchmarks.md",
}
# Parts of other templates, and one without any text.
PARTS = {"post.md.j2", "run.md.j2", "parity.md.j2"}
SOURCES = sorted([*(ROOT / "benchmarks").glob("*.py"), *STUDIES.glob("*.py")])


def template(name: str) -> Path:
    return next(path for path in (TEMPLATES / name, ROOT / "benchmarks" / name) if path.is_file())


def always(node: nodes.Node) -> Iterator[str]:
    """The text of a template, piece by piece, as far as it stands on the page whatever the data are."""
    if isinstance(node, nodes.If | nodes.CondExpr):
        return
    if isinstance(node, nodes.TemplateData):
        yield from filter(None, (line.strip() for line in node.data.splitlines()))
    if isinstance(node, nodes.Const) and " " in str(node.value) and "{" not in str(node.value):
        yield str(node.value)
    for child in node.iter_child_nodes():
        yield from always(child)


def test_every_template_has_its_page() -> None:
    here = {path.name for folder in (TEMPLATES, ROOT / "benchmarks") for path in folder.glob("*.j2")}
    assert here == set(PAGES) | PARTS


@pytest.mark.parametrize("name", PAGES)
def test_the_page_says_what_its_template_says(name: str) -> None:
    path = template(name)
    page, source = PAGES[name].read_text(encoding="utf-8"), path.read_text(encoding="utf-8")
    said = list(always(templates.environment(path.parent).parse(source)))
    assert said
    assert [piece for piece in said if piece not in page] == []


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page: head and rows, without the line between them."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    read = ([[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks)
    return [[rows[0], *rows[2:]] for rows in read]


def place(page: str, name: str) -> str:
    """What stands between the marks of a page written by hand."""
    before, after = marks.around(DOCS / page, name)
    whole = (DOCS / page).read_text(encoding="utf-8")
    return whole[len(before) : len(whole) - len(after)]


def test_the_tables_of_the_checks_give_the_page_again() -> None:
    text = place("checks.md", "tables")
    known, own, slips, [_, drawn, styles] = tables(text)
    date, cores, seeds, losses = re.findall(r"Measured (\S+), (\d+) cores, (\d+) seeds, (\d+) losses", text)[0]
    times = re.findall(r"(\w+) ([\d.]+) s \(at most ([\d.]+)\)", text)
    assert text == templates.render(
        checks.TEMPLATE,
        **{"date": date, "cores": cores, "seeds": seeds, "losses": losses, "styles": len(right_losses.ALL)},
        times=[{"model": model, "median": float(middle), "most": float(most)} for model, middle, most in times],
        known=checks.Guesses(known[0], known[1:]),
        own=checks.Guesses(own[0], own[1:]),
        slips=checks.Guesses(slips[0], slips[1:]),
        alarms=_alarms(drawn),
        style_alarms=_alarms(styles),
    )


def _alarms(row: list[str]) -> dict[str, object]:
    """A row of the table of what is right."""
    _, count, false, left_out, overflows, error = row
    assert false == "0"
    given = {"configurations": count, "left_out": left_out, "overflows": overflows}
    return {**given, "false": [], "error": float(error)}


def test_the_tables_of_watching_and_of_parity_give_their_pages_again() -> None:
    text = place("checks.md", "watching")
    date, cores, rounds = re.findall(r"\((\S+), (\d+) cores, one thread, medians of (\d+) ", text)[0]
    [[_, *rows]] = tables(text)
    assert text == templates.render(watching.TEMPLATE, date=date, cores=cores, rounds=rounds, rows=rows)
    text = place("cuda.md", "parity")
    date, device, processor = re.findall(r"(\S+), device=(\w+), float32, (.+)", text)[0]
    [[_, *rows]] = tables(text)
    given = {"date": date, "device": device, "processor": processor}
    assert text == templates.render(parity.TEMPLATE, **given, steps=parity.STEPS, rows=rows)


def test_a_name_without_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'rounds' is undefined"):
        templates.render(watching.TEMPLATE, date="today", cores=2, rows=[])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_only_what_is_public_is_imported(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        for name in names:
            assert name.split(".")[0] != "tests", f"{path.name} imports {name}"
            assert not any(part.startswith("_") and part != "__future__" for part in name.split(".")), name


COMMANDS = [path for path in SOURCES if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_tells_what_it_does(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {module.removesuffix('.__main__')} ")
