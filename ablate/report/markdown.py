"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

from tabulate import DataRow, TableFormat, tabulate

_ROW = DataRow("| ", " | ", " |")
# tabulate's own formats for Markdown pad columns: with one longer cell every line of a page would change.
_UNPADDED = TableFormat(
    lineabove=None,
    linebelowheader=lambda widths, _: "| " + " | ".join("---" for _ in widths) + " |",
    linebetweenrows=None,
    linebelow=None,
    headerrow=_ROW,
    datarow=_ROW,
    padding=0,
    with_header_hide=None,
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, whatever the cells hold: a bar stands for itself, and a cell may have several lines."""
    cells = [[_escaped(cell) for cell in row] for row in rows]
    return tabulate(cells, [_escaped(cell) for cell in head], _UNPADDED, stralign=None, disable_numparse=True)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", "<br>")
