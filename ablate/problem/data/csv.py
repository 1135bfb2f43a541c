"""A table in a text file, CSV or alike: a row a sample, one column of it the label, the others numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data import tables
from ablate.problem.data.origin import Origin
from ablate.problem.data.own import OwnFile, Part
from ablate.problem.data.sets import DATA_SETS
from ablate.problem.data.tables import Table

if TYPE_CHECKING:
    import pandas as pd

_LABELS = ("label", "labels", "class", "target", "y")  # a column of one of these names is the label
_ENDS = {"first": 0, "last": -1}
_NUMBERING = re.compile(r"unnamed: \d+|id|index|row|no|nr|#|.*[_ ]id", re.IGNORECASE)


@DATA_SETS.declare
class Csv(OwnFile):
    """`data=csv`."""

    batch_size: ClassVar[int | None] = 32
    wanted: ClassVar[str] = "a text file with a row for each sample, and data.label"

    name: Literal["csv"] = "csv"
    test_path: str | None = Field(
        None, description="csv: file with the table to test on (null: data.test_share of path)"
    )
    label: str | int | None = Field(
        None, description="csv: the column of the label, its name, first or last (null: the one named label or alike)"
    )
    header: bool | None = Field(None, description="csv: whether the first line names the columns (null: told by it)")
    drop: list[str | int] | None = Field(
        None, description="csv: columns to leave out (null: those that only number the rows, with a notice)"
    )

    def parts(self, origin: Origin) -> tuple[Part, Part | None]:
        """The rows of one table or two, their numbers as samples."""
        assert self.path is not None
        table = self._read(origin, self.path)
        dropped = self._dropped(origin, table)
        label = self._label(origin, table.without(dropped).names)
        table = table.without([column for column in dropped if column != label])
        if self.test_path is None:
            return _part(table, label), None
        of_test = Origin(f"data.test_path={self.test_path}")
        tested = self._read(of_test, self.test_path)
        origin.also(of_test)
        missing = [column for column in table.names if column not in tested.names]
        if missing:
            raise of_test.error(_without(missing, table.names, label))
        return _part(table, label), _part(tested.of(table.names), label)

    def _read(self, origin: Origin, path: str) -> Table:
        return tables.read(origin, Path(path).expanduser(), self.header)

    def _dropped(self, origin: Origin, table: Table) -> list[str]:
        """The columns to leave out: those named, else those that only number the rows."""
        columns = table.names
        if self.drop is None:
            numbering = [each for each in columns if each != str(self.label) and _numbers_rows(table.frame[each])]
            if numbering:
                left_out = f"the column {tables.listed(numbering)} only numbers the rows and is left out"
                confirm = f"{tables.dropping(numbering)} confirms it, data.drop=[] keeps it"
                origin.notice(f"{left_out}; {confirm}")
            return numbering
        asked = [str(column) for column in self.drop]
        for column in asked:
            if column not in columns:
                there = f"its columns are {tables.listed(columns)}"
                raise ConfigError(f"{tables.dropping(asked)}: no column {column} in {origin.named}, {there}")
        return asked

    def _label(self, origin: Origin, columns: Sequence[str]) -> str:
        """The column of the label, one of these."""
        there = f"its columns are {tables.listed(columns)}"
        if len(columns) < 2:
            raise origin.error(f"a label and at least one number in a row were expected; {there}")
        if self.label is None:
            named = [column for column in columns if column.lower() in _LABELS]
            if len(named) != 1:
                raise origin.error(f"which column is the label? data.label=NAME, first or last; {there}")
            origin.notice(f"the column {named[0]} is taken as the label; data.label={named[0]} confirms it")
            return named[0]
        label = str(self.label)
        if label in columns:
            return label
        if label not in _ENDS:
            raise ConfigError(f"data.label={label}: no such column, {there}; give one of them, first or last")
        return columns[_ENDS[label]]


def _numbers_rows(column: pd.Series[Any]) -> bool:
    """Whether a column is there to tell rows apart: each of its whole numbers occurs once, and its name says so.

    Without a header there is no such name; then they must be a count from 0 or 1.
    """
    if column.dtype.kind != "i" or len(column) < 3 or not column.is_unique:
        return False
    is_count = column.iloc[0] in (0, 1) and bool((column.diff().iloc[1:] == 1).all())
    return _NUMBERING.fullmatch(str(column.name)) is not None or (str(column.name).isdigit() and is_count)


def _part(table: Table, label: str) -> Part:
    """The numbers and the label of every row. Raises an error for gaps and text."""
    columns = table.without([label])
    columns.refuse_text()
    y, origin = table.frame[label], table.origin
    if y.isna().all() or (label in table.texts and y.isna().any()):
        y = _words(table, label)
        table = replace(table, frame=table.frame.assign(**{label: y}))
    table.refuse_unlabelled(label)
    columns.refuse_gaps()
    named = f"the column {label}" + (f" of {origin.named}" if "test_path" in origin.named else "")
    labels = y.to_numpy() if y.dtype.kind in "biuf" else y.astype(str).to_numpy(dtype=str)
    return Part(columns.numbers, labels, "the table", named)


def _words(table: Table, label: str) -> pd.Series[Any]:
    """Labels that are text, with NA, None and the like as words of their own; only an empty cell is a gap."""
    words = table.words(label)
    filled = table.frame[label].mask(words != "", words)
    if kept := sorted(set(words[table.frame[label].isna() & (words != "")])):
        taken = (
            f"the label {', '.join(map(repr, map(str, kept)))} in the column {label} is taken as a class, not as a gap"
        )
        table.origin.notice(f"{taken}; leave out rows that have none")
    return filled


def _without(missing: Sequence[str], columns: Sequence[str], label: str) -> str:
    """What to do about columns of the training table that the test table does not have."""
    if list(missing) == [label]:
        advice = "leave data.test_path out, and a share of data.path is tested on"
        return f"it has no column {label}, the label, so nothing can be compared; {advice}"
    if list(missing) == list(columns):
        missing = [f"{missing[0]} or any other"]
    advice = "name the columns alike, in a header of both or of neither"
    return f"it has no column {tables.listed(missing)} of the training table; {advice}"
