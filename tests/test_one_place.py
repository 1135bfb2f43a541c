"""What is to be known in one place only: the names of a sweep's files, and who may import whom."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import ablate

PACKAGE = Path(ablate.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TRIAL = {
    *(".hydra", "config.yaml", "overrides.yaml", "result.json", "check.json", "metrics.jsonl", "mlflow.json"),
    *("init.npz", "final.npz", "predictions.npz"),
}
SWEEP = {"results.csv", "sweep.yaml", "report.md", "curves.png", "ablate.log", ".results.lock"}
# The configuration that ships with ablate has a file of the same name.
ELSEWHERE = {("config/groups.py", "config.yaml")}

# package: the packages of ours that it may import.
ALLOWED: Mapping[str, set[str]] = {
    "records": {"problem", "backends", "config", "trials", "training", "diagnosis", "records", "errors"},
    "report": {"config", "trials", "diagnosis", "records", "report", "errors"},
    "terminal": {"config", "trials", "diagnosis", "records", "terminal", "errors"},
}
# Who alone may import a library.
ALONE = {"mlflow": "records", "hydra": "commands"}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def literals(tree: ast.AST) -> Iterator[str]:
    """The strings of a module but for its docstrings."""
    told = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("files", "home"), [(TRIAL, "records/trial_folder.py"), (SWEEP, "records/sweep_folder.py")], ids=["trial", "sweep"]
)
def test_one_module_names_the_files(files: set[str], home: str) -> None:
    named: dict[str, set[str]] = {}
    for path in MODULES:
        # A text with blanks in it is a sentence for the user, not a path.
        paths = [text for text in literals(_tree(path)) if not set(text) & set(" \n")]
        found = {file for file in files for text in paths if file in text.split("/")}
        named[name(path)] = {file for file in found if (name(path), file) not in ELSEWHERE}
    assert named.pop(home) == files
    assert {module: found for module, found in named.items() if found} == {}


def test_imports_point_one_way() -> None:
    wrong = set()
    for path in MODULES:
        package = name(path).split("/")[0]
        for module in imported(_tree(path)):
            library, part = f"{module}.".split(".")[:2]
            if library == "ablate" and path.name != "__main__.py" and part not in ALLOWED.get(package, {part}):
                wrong.add((name(path), module))
            if ALONE.get(library, package) != package:
                wrong.add((name(path), module))
    assert not wrong


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))
