"""The results of a sweep: one row per trial, in `results.csv` and as a data frame."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import ConfigError
from ablate.problem.tasks import TASKS
from ablate.records.files import broken, from_here, replace_file
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import EndedTrial
from ablate.trials.factors import factors, level
from ablate.trials.trial import Trial

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
# Behind the others, where a trial's targets are no classes.
_SCORES = {name for task in TASKS for name in task.result_columns}


def write(sweep: SweepFolder, plan: Sequence[Trial] = ()) -> list[EndedTrial]:
    """Write `results.csv` of the trials that have ended so far; several processes may do so at once.

    The factors are those of the sweep's plan or, if it has none, those of the trials that have ended: the jobs of
    another Hydra launcher are planned one by one.
    """
    with sweep.lock():
        ended = sweep.ended(plan)
        columns = factors(plan) or factors(ended)
        text = io.StringIO()
        scores = dict.fromkeys(name for trial in ended for name in trial.row.get("scores", {}))
        names = [*_HEAD, *columns, *_TAIL, *scores]
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for trial in ended:
            place = {"run_id": trial.folder.read_delivery()["run_id"], "dir": str(from_here(trial.folder.path))}
            levels = {key: level(trial, key) for key in columns}
            writer.writerow({**levels, **trial.row, **trial.row.get("scores", {}), **place})
        replace_file(sweep.results, text.getvalue())
    return ended


def load(*sweeps: str | Path, curves: bool = False) -> "pd.DataFrame":
    """The results of one sweep or several as a data frame.

    One row per trial, columns as in `results.csv`, and `sweep`, the folder's name. With `curves`, the metrics in long
    form instead: `sweep, trial`, the factors, `seed, step, epoch, metric, value` (NaN if a value was not finite).
    Raises ConfigError if a folder is not that of a sweep.
    """
    import pandas as pd

    if not sweeps:
        raise ConfigError("ablate.load() needs at least one sweep folder, such as runs/<sweep>")
    tables = [_load_one(SweepFolder(Path(sweep)), curves) for sweep in sweeps]
    return pd.concat(tables, ignore_index=True)


def _load_one(sweep: SweepFolder, curves: bool) -> "pd.DataFrame":
    import pandas as pd

    sweep.check_begun()
    try:
        table = pd.read_csv(sweep.results)
    except pd.errors.EmptyDataError:
        raise broken(sweep.results) from None
    table.insert(0, "sweep", sweep.path.resolve().name)
    return _curves(sweep, table) if curves else table


def _curves(sweep: SweepFolder, table: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    keys = [
        "sweep",
        "trial",
        *[column for column in table if column not in ("sweep", *_HEAD, *_TAIL, *_SCORES)],
        "seed",
    ]
    parts = []
    for row in table.to_dict("records"):
        lines = sweep.trial(row["trial"]).read_metrics()
        if not lines:
            continue
        wide = pd.DataFrame(lines)
        long = wide.melt(["step", "epoch"], var_name="metric", value_name="value")
        # The wide table has NaN both for a metric that a line lacks and for a null in it: keep only the latter.
        present = [name in line for name in wide.columns[2:] for line in lines]
        long = long[present]
        for place, key in enumerate(keys):
            long.insert(place, key, row[key])
        parts.append(long)
    nothing = pd.DataFrame(columns=[*keys, "step", "epoch", "metric", "value"])
    return pd.concat(parts, ignore_index=True) if parts else nothing
