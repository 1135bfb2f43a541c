"""The results of a sweep: one row a trial, in `results.csv` and as a data frame."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ablate.errors import ConfigError
from ablate.records import folder as records

if TYPE_CHECKING:
    import pandas as pd

_HEAD = ["trial", "status", "verdict", "why"]
_TAIL = [
    "seed",
    "test_accuracy",
    "test_loss",
    "train_accuracy",
    "train_loss",
    "epochs",
    "seconds",
    "run_id",
    "dir",
]


def rows(sweep: Path) -> list[dict[str, Any]]:
    """The row of every trial that has ended, in order; factors stand under `overrides`."""
    found = []
    for folder in sorted((path.parent for path in sweep.glob(f"*/{records.RESULT}")), key=_number):
        row = records.read_result(folder)
        if row is not None:
            found.append({**row, "run_id": records.read_delivery(folder)["run_id"], "dir": _shown(folder)})
    return found


def _shown(folder: Path) -> str:
    """A folder as seen from the working directory, where it lies below it."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)


def _number(folder: Path) -> int:
    return int(folder.name) if folder.name.isdigit() else -1


def varying(found: Sequence[dict[str, Any]]) -> list[str]:
    """The override keys, `seed` excepted, whose values differ over these rows."""
    keys = dict.fromkeys(key for row in found for key in row["overrides"])
    return [key for key in keys if key != "seed" and len({str(row["overrides"].get(key)) for row in found}) > 1]


def write(sweep: Path, factors: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Write `results.csv` from the trials' rows so far; several processes may do so at once.

    `factors` are those of the sweep's plan; where it has none, the keys that vary over the rows there are: a
    foreign launcher's jobs are planned one by one.
    """
    with FileLock(sweep / ".results.lock"):
        found = rows(sweep)
        columns = list(factors or varying(found))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*_HEAD, *columns, *_TAIL], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in found:
            writer.writerow({**{key: row["overrides"].get(key) for key in columns}, **row})
        records.replace_file(sweep / "results.csv", text.getvalue())
    return found


def load(*sweeps: str | Path, curves: bool = False) -> "pd.DataFrame":
    """The results of one sweep or several as a data frame.

    One row a trial, columns as in `results.csv`, and `sweep`, the folder's name. With `curves`, the metrics in
    long form instead: `sweep, trial`, the factors, `seed, step, epoch, metric, value` (NaN where a value was
    not finite). Raises ConfigError where a folder is not a sweep's.
    """
    import pandas as pd

    if not sweeps:
        raise ConfigError("ablate.load() needs at least one sweep folder, such as runs/<sweep>")
    tables = [_load_one(Path(sweep), curves) for sweep in sweeps]
    return pd.concat(tables, ignore_index=True)


def _load_one(sweep: Path, curves: bool) -> "pd.DataFrame":
    import pandas as pd

    path = sweep / "results.csv"
    if not path.is_file():
        raise ConfigError(f"{sweep}: no results.csv there; expected the folder of a sweep, such as runs/<sweep>")
    table = pd.read_csv(path)
    table.insert(0, "sweep", sweep.resolve().name)
    return _curves(sweep, table) if curves else table


def _curves(sweep: Path, table: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    keys = [
        "sweep",
        "trial",
        *[column for column in table if column not in ("sweep", *_HEAD, *_TAIL)],
        "seed",
    ]
    parts = []
    for row in table.to_dict("records"):
        lines = records.read_metrics(sweep / str(row["trial"]))
        wide = pd.DataFrame(lines)
        long = wide.melt(["step", "epoch"], var_name="metric", value_name="value")
        # A wide table has a gap for every metric that a line does not have, and one for every null it has.
        present = [name in line for name in wide.columns[2:] for line in lines]
        long = long[present]
        for place, key in enumerate(keys):
            long.insert(place, key, row[key])
        parts.append(long)
    return pd.concat(parts, ignore_index=True)
