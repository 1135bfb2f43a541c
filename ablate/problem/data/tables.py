"""Tables in text files: their separator, header and numbers, and what makes numbers of the rest."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.dataset import brief
from ablate.problem.data.origin import Origin

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = ",;\t|"
_LOOKED_AT = 20  # rows, to tell whether the first is a header
_SHOWN = 4
_UNIT = r"[^0-9eE.+-]"  # what is no part of a number
_BINARY = (b"PK", b"\xd0\xcf\x11\xe0", b"\x93NUMPY", b"PAR1", b"\x89HDF")


def read(origin: Origin, file: Path, header: bool | None) -> pd.DataFrame:
    """The table in a file, plain or `.gz`, its columns named by text; `header` says whether the first line names them.

    None: told by that line. Raises `origin.error` if the file is no such table, and leaves a notice where numbers have
    a decimal comma.
    """
    content = _content(origin, file)
    separator = _separator(content)
    if header is None:
        options = {"dtype": str, "nrows": _LOOKED_AT, "keep_default_na": False}
        head = _parsed(origin, content, separator, header=None, **options)
        header = _is_header(origin, head.to_numpy(dtype=str))
    table = _parsed(origin, content, separator, header=0 if header else None)
    if separator == ";" and texts(table):
        continental = _parsed(origin, content, separator, header=0 if header else None, decimal=",")
        if len(texts(continental)) < len(texts(table)):
            origin.notice("numbers such as 1,5 are read with a decimal comma")
            table = continental
    if not len(table):
        raise origin.error("it has names of columns, but no rows; a row for each sample was expected")
    table.columns = [str(column).strip() for column in table.columns]
    # Of a separator at the end of every line.
    empty = [column for column in names(table) if column.startswith("Unnamed: ") and table[column].isna().all()]
    return table.drop(columns=empty)


def names(table: pd.DataFrame) -> list[str]:
    """The names of its columns."""
    return [str(column) for column in table.columns]


def texts(table: pd.DataFrame) -> list[str]:
    """The names of its columns that hold anything but numbers."""
    return [str(column) for column in table if table[column].dtype.kind not in "biuf"]


def numbers(table: pd.DataFrame) -> NDArray[Any]:
    """Its values `(rows, columns)`; every column must hold numbers or bools."""
    bools = {name: "uint8" for name in names(table) if table[name].dtype.kind == "b"}
    return table.astype(bools).to_numpy()


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


def refuse_text(origin: Origin, columns: pd.DataFrame) -> None:
    """Raise `origin.error` for a column that is not all numbers, with what makes numbers of it."""
    import pandas as pd

    for name in texts(columns):
        cells = columns[name].dropna().astype(str)
        numbers = pd.to_numeric(cells, errors="coerce")
        odd = cells[numbers.isna()]
        bare = odd.str.replace(_UNIT, "", regex=True)
        if len(odd) and pd.to_numeric(bare, errors="coerce").notna().all():
            found = f"the column {name} has numbers with a unit, such as {odd.iloc[0]!r}"
            stripped = f"df[{name!r}].str.replace(r{_UNIT!r}, '', regex=True).astype(float)"
            advice = f"df = pd.read_csv(path); df[{name!r}] = {stripped}; df.to_csv(new, index=False)"
            raise origin.error(f"{found}; take it off: {advice}")
        if 0 < len(odd) < len(cells) / 2:
            words = sorted(set(odd))[:_SHOWN]
            found = f"the column {name} has {', '.join(map(repr, words))} among its numbers, in {len(odd)} rows"
            advice = f"pd.read_csv(path, na_values={words}).dropna().to_csv(new, index=False)"
            raise origin.error(f"{found}; if that means a missing number: {advice}")
    if words := texts(columns):
        found = f"the column{'s' if len(words) > 1 else ''} {listed(words)} hold{'s' if len(words) == 1 else ''} text"
        coded = f"pd.get_dummies(pd.read_csv(path), columns={words}, dtype=int).to_csv(new, index=False)"
        raise origin.error(f"{found}; leave out with {dropping(words)}, or a column for each word: {coded}")


def refuse_gaps(origin: Origin, table: pd.DataFrame) -> None:
    """Raise `origin.error` for missing values, with what fills them."""
    missing = {str(name): int(count) for name, count in table.isna().sum().items() if count}
    if missing:
        name, count = max(missing.items(), key=lambda item: item[1])
        others = f" ({len(missing)} columns have gaps)" if len(missing) > 1 else ""
        found = f"the column {name} has no value in {count} of {len(table)} rows{others}"
        filled = "df = pd.read_csv(path); df.fillna(df.median(numeric_only=True)).to_csv(new, index=False)"
        raise origin.error(f"{found}; fill them: {filled}; or df.dropna() leaves the rows out")


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
    """The separator that splits the first line into most cells; white space if none does."""
    line = content.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8").strip("\r")
    found = max(_SEPARATORS, key=lambda each: len(next(csv.reader([line], delimiter=each), [])))
    if found in line:
        return found
    if len(line.split()) > 1:
        return r"\s+"
    return ","


def _parsed(origin: Origin, content: bytes, separator: str, header: int | None, **options: Any) -> pd.DataFrame:
    import pandas as pd  # half a second, so only where a table is read

    try:
        return pd.read_csv(
            io.BytesIO(content),
            sep=separator,
            header=header,
            index_col=False,
            skipinitialspace=True,
            low_memory=False,
            encoding="utf-8-sig",
            **options,
        )
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
    # Pandas names the columns of an array so; one may have been renamed, or be the unnamed index.
    counted = [cell for cell in first if cell and not _is_text(cell)]
    if len(counted) < max(3, len(first) - 1) or counted != [str(place) for place in range(len(counted))]:
        return False
    origin.notice("its first line counts the columns and is taken as their names; data.header=true confirms it")
    return True


def _is_text(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return True
    return False
