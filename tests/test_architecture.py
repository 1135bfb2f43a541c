"""`docs/architecture.md` is true, and imports keep to the contracts of pyproject.toml."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

from docs.studies import architecture

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = sorted(folder.parent.name for folder in (ROOT / "ablate").glob("*/__init__.py"))


def test_the_page_is_what_the_code_gives() -> None:
    assert architecture.page() == PAGE, "make it again: python -m docs.studies.architecture"


def test_every_package_has_its_node_and_its_line() -> None:
    assert sorted(re.findall(r"^    (\w+)$", PAGE, re.M)) == PACKAGES
    lines = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.M))
    assert sorted(lines) == PACKAGES
    for package, purpose in lines.items():
        assert (ROOT / "ablate" / package / "__init__.py").read_text(encoding="utf-8").startswith(f'"""{purpose}')


def imported(path: Path) -> Iterator[str]:
    """The packages of ablate that a file imports from, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("ablate."))


def test_the_arrows_carry_the_number_of_files() -> None:
    counted: dict[tuple[str, str], int] = {}
    for package in PACKAGES:
        for path in (ROOT / "ablate" / package).rglob("*.py"):
            for other in set(imported(path)) & set(PACKAGES) - {package} if path.name != "__main__.py" else ():
                counted[package, other] = counted.get((package, other), 0) + 1
    told = {(a, b): int(count) for a, count, b in re.findall(r"^    (\w+) -->\|(\d+)\| (\w+)$", PAGE, re.M)}
    assert told == counted


def test_imports_keep_to_the_contracts() -> None:
    """In a process of its own: import-linter disables all loggers of the one it runs in."""
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
