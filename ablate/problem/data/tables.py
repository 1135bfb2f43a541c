"""Tables in text files: their separator, header and numbers, and what makes numbers of the rest."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.dataset import brief
from ablate.problem.data.origin import Origin

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = ";\t|,"  # of two that fit alike the first: a comma may be a decimal one
_LOOKED_AT = 20  # rows, to tell whether the first is a header
_HEAD = 1 << 20  # bytes, to tell the separator
_SHOWN = 4
_BINARY = (b"PK", b"\xd0\xcf\x11\xe0", b"\x93NUMPY", b"PAR1", b"\x89HDF")

_COMMA_NUMBER = re.compile(r"[+-]?\d+(?:,\d+)?")
_THOUSANDS = r"[+-]?[1-9]\d{0,2}(?:,\d{3})+"
_NUMBER = r"[+-]?\d+(?:\.\d*)?|[+-]?\.\d+"
# A currency before a number, or letters behind it: nothing that makes another number, such as :, / or brackets.
_BEFORE = re.compile(rf"([+-]?)([$€£¥₹])\s*({_NUMBER})")
_BEHIND = re.compile(rf"({_NUMBER})\s*([%‰°€£¥µ²³a-zA-Z][%‰°€£¥µ²³a-zA-Z/]*)")
# Not to be taken for a word, nor for a gap.
_NUMBERLIKE = re.compile(r"[(+\-\u2212]?[$€£¥₹]?\s*[.,]?\d")
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Table:
    """A table of a file: `frame`, its columns named by text, and how pandas reads the same from the file.

    `written` are the names of its columns as pandas has them, `options` what `pd.read_csv` needs besides the path.
    """

    origin: Origin
    frame: pd.DataFrame
    content: bytes
    written: dict[str, Hashable]
    options: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The names of its columns."""
        return [str(column) for column in self.frame.columns]

    @property
    def texts(self) -> list[str]:
        """The names of its columns that hold anything but numbers."""
        return texts(self.frame)

    @property
    def numbers(self) -> NDArray[Any]:
        """Its values `(rows, columns)`; every column must hold numbers or bools."""
        bools = {name: "uint8" for name in self.names if self.frame[name].dtype.kind == "b"}
        return self.frame.astype(bools).to_numpy()

    def of(self, columns: Sequence[str]) -> Table:
        """The table with these columns only."""
        return replace(self, frame=self.frame[list(columns)])

    def without(self, columns: Sequence[str]) -> Table:
        return self.of([name for name in self.names if name not in columns])

    def words(self, name: str) -> NDArray[np.str_]:
        """The cells of a column as they are written: words such as NA and None, too, that pandas takes for gaps."""
        options = {**self.options, "dtype": str, "keep_default_na": False, "usecols": [self.written[name]]}
        cells = _parsed(self.origin, self.content, **options).iloc[:, 0]
        return cells.str.strip().to_numpy(dtype=str)

    def refuse_text(self) -> None:
        """Raise `origin.error` for a column that is not all numbers, with what makes numbers of it."""
        for name in self.texts:
            if complaint := self._of_text(name):
                raise self.origin.error(complaint)
        if words := self.texts:
            found = f"the column{'s' if len(words) > 1 else ''} {listed(words)} hold{'s' if len(words) == 1 else ''}"
            raise self.origin.error(f"{found} text; {self._out_or_coded(words)}")

    def refuse_gaps(self) -> None:
        """Raise `origin.error` for missing values, with what fills them."""
        missing = {str(name): int(count) for name, count in self.frame.isna().sum().items() if count}
        if missing:
            name, count = max(missing.items(), key=lambda item: item[1])
            others = f" ({len(missing)} columns have gaps)" if len(missing) > 1 else ""
            filled = f"df = {self._read()}; {self._saved('df.fillna(df.median(numeric_only=True))')}"
            raise self.origin.error(f"{self._gap(name, count)}{others}; fill them: {filled}; or df.dropna() {_LEFT}")

    def refuse_unlabelled(self, label: str) -> None:
        """Raise `origin.error` for rows without a label: no number or word can be filled in there."""
        if count := int(self.frame[label].isna().sum()):
            kept = self._saved(f"{self._read()}.dropna(subset=[{self.written[label]!r}])")
            raise self.origin.error(f"{self._gap(label, count)}, which is the label; {kept} {_LEFT}")

    def _gap(self, name: str, count: int) -> str:
        return f"the column {name} has no value in {count} of {len(self.frame)} rows"

    def _of_text(self, name: str) -> str | None:
        """What is to be said of one column that is not all numbers; None for words."""
        import pandas as pd

        cells = self.frame[name].dropna().astype(str).str.strip()
        odd = cells[pd.to_numeric(cells, errors="coerce").isna()]
        shown = sorted(set(odd))[:_SHOWN]
        among = " among its numbers" if len(odd) < len(cells) else ""
        few = f"the column {name} has {', '.join(map(repr, shown))}{among}, in {len(odd)} rows"
        column = f"df[{self.written[name]!r}]"
        if all(re.fullmatch(f"(?:{_NUMBER}|{_THOUSANDS})(?:\\.\\d*)?", cell) for cell in odd) and len(odd):
            return f"{few}; if a comma stands between thousands: {self._saved(self._read(thousands=','))}"
        if len(odd) and pd.to_numeric(odd.str.replace(_MINUS, "-"), errors="coerce").notna().all():
            made = f"{column}.str.replace({_MINUS!r}, '-').astype(float)"
            return (
                f"the column {name} has a minus that is none of ASCII, as in {odd.iloc[0]!r}; {self._set(name, made)}"
            )
        if unit := _unit(odd, len(cells)):
            made = f"{column}.str.replace({unit!r}, '').astype(float)"
            found = f"the column {name} has numbers with a unit, such as {odd.iloc[0]!r}, in {len(odd)} rows"
            return f"{found}; take it off: {self._set(name, made)}"
        if any(map(_NUMBERLIKE.match, odd)):
            return f"{few}, which are no numbers as they stand; write them as numbers, {self._out_or_coded([name])}"
        if 0 < len(odd) < len(cells) / 2:
            return f"{few}; if that means a missing number: {self._saved(self._read(na_values=shown) + '.dropna()')}"
        return None

    def _out_or_coded(self, names: Sequence[str]) -> str:
        written = [self.written[name] for name in names]
        coded = f"pd.get_dummies({self._read()}, columns={written}, dtype=int).to_csv(new, index=False)"
        return f"leave out with {dropping(names)}, or a column for each word, behind the others: {coded}"

    def _set(self, name: str, made: str) -> str:
        return f"df = {self._read()}; df[{self.written[name]!r}] = {made}; {self._saved('df')}"

    def _read(self, **more: Any) -> str:
        """The line that reads the table from its file with pandas."""
        options = {**self.options, **more}
        given = [f"{key}={value!r}" for key, value in options.items() if _DEFAULTS.get(key, ...) != value]
        return f"pd.read_csv({', '.join(['path', *given])})"

    def _saved(self, made: str) -> str:
        """The line that writes a table of the same columns, with names if these had names."""
        return f"{made}.to_csv(new, index=False{', header=False' if self.options['header'] is None else ''})"


_LEFT = "leaves the rows out"
# What `pd.read_csv` does unless it is told otherwise.
_DEFAULTS: dict[str, Any] = {"sep": ",", "header": 0, "skipinitialspace": False, "decimal": "."}


def _unit(odd: pd.Series[Any], cells: int) -> str | None:
    """What stands before or behind every odd cell's number: one currency, or one unit that every cell has."""
    currency = _only([match[2] if match else None for match in map(_BEFORE.fullmatch, odd)])
    # Beside bare numbers, 10k or 50% would become another number than is meant.
    behind = map(_BEHIND.fullmatch, odd) if len(odd) == cells else ()
    return currency or _only([match[2] if match else None for match in behind])


def _only(found: Sequence[str | None]) -> str | None:
    """What all of these are."""
    return found[0] if len(set(found)) == 1 else None


def read(origin: Origin, file: Path, header: bool | None) -> Table:
    """The table in a file, plain or `.gz`, its columns named by text; `header` says whether the first line names them.

    None: told by that line. Raises `origin.error` if the file is no such table, and leaves a notice where numbers have
    a decimal comma.
    """
    content = _content(origin, file)
    separator = _separator(content)
    padded = separator.encode() + b" " in content
    parsed = partial(_parsed, origin, content, sep=separator, skipinitialspace=padded)
    if header is None:
        head = parsed(header=None, dtype=str, nrows=_LOOKED_AT, keep_default_na=False)
        header = _is_header(origin, head.to_numpy(dtype=str))
    options = {"sep": separator, "header": 0 if header else None, "skipinitialspace": padded, "decimal": "."}
    frame = _parsed(origin, content, **options)
    if texts(frame):
        continental = {**options, "decimal": ","}
        other = _parsed(origin, content, **continental)
        if became := [name for name in texts(frame) if other[name].dtype.kind in "biuf"]:
            _heed_commas(origin, frame, became, options)
            frame, options = other, continental
    if not len(frame):
        raise origin.error("it has names of columns, but no rows; a row for each sample was expected")
    named = [str(column).strip() for column in frame.columns]
    if twice := [name for name in named if named.count(name) > 1]:
        raise origin.error(f"{named.count(twice[0])} of its columns are called {twice[0]}; give each a name of its own")
    written: dict[str, Hashable] = dict(zip(named, frame.columns, strict=True))
    table = Table(origin, frame.set_axis(named, axis=1), content, written, options)
    # Of a separator at the end of every line.
    unnamed = [name for name in named if name.startswith("Unnamed: ")] if header else named[-1:]
    empty = [name for name in unnamed if table.frame[name].isna().all()]
    return table.without(empty)


def texts(frame: pd.DataFrame) -> list[Any]:
    """The names of the columns that hold anything but numbers."""
    return [column for column in frame if frame[column].dtype.kind not in "biuf"]


def dropping(columns: Sequence[str]) -> str:
    """The key that leaves columns out, as it is written on a command line."""
    words = [name if re.fullmatch(r"[A-Za-z]\w*", name) else f'"{name}"' for name in columns]
    key = f"data.drop=[{','.join(words)}]"
    return key if words == list(columns) else f"'{key}'"


def listed(columns: Sequence[str]) -> str:
    """Names of columns, the first few and the last."""
    if len(columns) <= _SHOWN + 1:
        return ", ".join(columns)
    return f"{', '.join(columns[:_SHOWN])}, ..., {columns[-1]} ({len(columns)})"


def _heed_commas(origin: Origin, frame: pd.DataFrame, columns: Iterable[Any], options: dict[str, Any]) -> None:
    """Say that commas are decimal ones. Raises `origin.error` if each of them may stand between thousands as well."""
    given = "".join(f", {key}={value!r}" for key, value in options.items() if _DEFAULTS[key] != value)
    for name in columns:
        cells = frame[name].dropna().astype(str).str.strip()
        cells = cells[cells.str.contains(",")]
        decimal = cells[~cells.str.fullmatch(_THOUSANDS)]
        if len(decimal):
            read_as = f"{decimal.iloc[0]} in the column {name}"
            origin.notice(f"numbers such as {read_as} are read with a decimal comma")
            return
    found = f"numbers such as {cells.iloc[0]} in the column {name} may have a decimal comma, or one between thousands"
    lines = (f"pd.read_csv(path{given}, {key}=',').to_csv(new, index=False)" for key in ("decimal", "thousands"))
    raise origin.error(f"{found}; write which: {', or '.join(lines)}")


def _content(origin: Origin, file: Path) -> bytes:
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise origin.error(f"cannot be read ({brief(error)}); give a text file with a row for each sample") from error
    if content.startswith(_BINARY) or b"\0" in content[:1024]:
        advice = (
            "data=npz reads arrays" if b".npy" in content[:1024] else "pd.read_excel(path).to_csv(new, index=False)"
        )
        raise origin.error(f"it is no plain text; a table as text was expected, or a .gz of one: {advice}")
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        advice = "pd.read_csv(path, encoding='latin-1').to_csv(new, index=False)"
        raise origin.error(f"it is not UTF-8 ({brief(error)}); write it again: {advice}") from error
    if not content.strip():
        raise origin.error("it is empty; a row for each sample was expected")
    return content


def _separator(content: bytes) -> str:
    """The separator that splits the first line into most cells, and the next ones into as many; else white space."""
    head = content.removeprefix(b"\xef\xbb\xbf")[:_HEAD]
    lines = re.split(r"[\r\n]+", head.decode("utf-8", "ignore").lstrip("\r\n"))[: _LOOKED_AT + 1]
    line, others = lines[0], lines[1:-1]
    if all(map(_COMMA_NUMBER.fullmatch, line.split())) and len(line.split()) > 1:
        return r"\s+"

    def fits(separator: str) -> tuple[int, int]:
        cells = _cells(line, separator)
        return cells, sum(_cells(other, separator) == cells for other in others)

    found = max(_SEPARATORS, key=fits)
    if found in line:
        return found
    if len(line.split()) > 1:
        return r"\s+"
    return ","


def _cells(line: str, separator: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=separator), []))
    except csv.Error:  # a quote that is not closed makes a cell of all that follows
        return line.count(separator) + 1


def _parsed(origin: Origin, content: bytes, **options: Any) -> pd.DataFrame:
    import pandas as pd  # half a second, so only where a table is read

    try:
        return pd.read_csv(io.BytesIO(content), index_col=False, low_memory=False, encoding="utf-8-sig", **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise origin.error(f"cannot be read as a table ({brief(error)}); give every row as many cells") from error


def _is_header(origin: Origin, head: NDArray[np.str_]) -> bool:
    """Whether the first of some rows of cells names the columns: text above numbers, or text throughout, or a count."""
    first, below = head[0], head[1:]
    is_text = [_is_text(cell) for cell in first]
    if all(is_text) or not len(below):
        return all(is_text)
    columns = zip(is_text, below.T, strict=True)
    if any(text and any(column) and not any(map(_is_text, column)) for text, column in columns):
        return True
    if not _counts(first, below):
        return False
    origin.notice("its first line counts the columns and is taken as their names; data.header=true confirms it")
    return True


def _counts(first: NDArray[np.str_], below: NDArray[np.str_]) -> bool:
    """Whether a row of cells counts the columns, one of which may have a name that does not occur below it.

    Pandas names the columns of an array so, from 0; one may have been renamed, or be the unnamed index.
    """
    counted = [cell for cell in first if cell and not _is_text(cell)]
    names = [(cell, column) for cell, column in zip(first, below.T, strict=True) if _is_text(cell)]
    if len(counted) < max(3, len(first) - 1) or any(cell in column for cell, column in names):
        return False
    starts = (0, 1) if names else (0,)
    return any(counted == [str(place + start) for place in range(len(counted))] for start in starts)


def _is_text(cell: str) -> bool:
    """Whether a cell is no number, with a decimal point or a decimal comma."""
    try:
        float(cell.replace(",", ".", 1) or "nan")
    except ValueError:
        return True
    return False
