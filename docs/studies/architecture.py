"""Writes docs/architecture.md: the packages of ablate/ and the imports between them, from the code itself.

python -m docs.studies.architecture

The packages come from `grimp`'s graph of imports, their order from the layers in pyproject.toml, what each is for from
the first line of its docstring; the rest of the text is in `templates/architecture.md.j2`.
"""

import argparse
import ast
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grimp

from benchmarks.templates import render

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TEMPLATE = Path(__file__).resolve().parent / "templates" / "architecture.md.j2"
PACKAGE = "ablate"


@dataclass(frozen=True)
class Arrow:
    """One package imports another: from so many of its modules."""

    importer: str
    imported: str
    modules: int


def layers() -> list[str]:
    """The packages, those first that import no other: the layers of pyproject.toml from the lowest up."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [contract] = [each for each in settings["contracts"] if each["type"] == "layers"]
    names = [name.strip() for layer in reversed(contract["layers"]) for name in layer.split("|")]
    return [name.removeprefix(f"{PACKAGE}.") for name in names if (_folder(name) / "__init__.py").is_file()]


def arrows(graph: grimp.ImportGraph, packages: Sequence[str]) -> Iterator[Arrow]:
    """Who imports whom, in the packages' order. What starts a program, `__main__`, is nobody's part."""
    modules = {
        name: {f"{PACKAGE}.{name}", *graph.find_descendants(f"{PACKAGE}.{name}")} - {f"{PACKAGE}.{name}.__main__"}
        for name in packages
    }
    for importer in packages:
        for imported in packages:
            crossing = [
                module
                for module in modules[importer]
                if graph.find_modules_directly_imported_by(module) & modules[imported]
            ]
            if crossing and importer != imported:
                yield Arrow(importer, imported, len(crossing))


def purpose(name: str) -> str:
    """The first line of a package's docstring."""
    tree = ast.parse((_folder(f"{PACKAGE}.{name}") / "__init__.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def page() -> str:
    """The whole page, as the code is now."""
    packages = layers()
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return render(
        TEMPLATE,
        packages=packages,
        arrows=list(arrows(graph, packages)),
        rows=[[f"`{name}`", purpose(name)] for name in packages],
    )


def _folder(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.studies.architecture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--into", type=Path, default=PAGE, help="the page to write, docs/architecture.md")
    into: Path = parser.parse_args().into
    into.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
