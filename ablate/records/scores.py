"""The score by which a trial is compared with others, and what it is called: accuracy or, of number targets, R²."""

import math
from collections.abc import Iterable, Mapping

from ablate.problem.tasks import CLASSIFICATION, TASKS, Task
from ablate.records.trial_folder import Row

__all__ = ["HEADINGS", "Task", "heading", "rank", "score", "task_of", "written"]

# The titles of columns of scores.
HEADINGS = {task.heading for task in TASKS}


def task_of(row: Mapping[str, object]) -> Task:
    """What the trial's network was to learn."""
    return TASKS.get(str(row.get("task", CLASSIFICATION.name)))


def score(row: Row) -> float | None:
    """The score on the test set, None where there is none."""
    if task_of(row).score == "accuracy":
        return row["test_accuracy"]
    return row.get("scores", {}).get(f"test_{task_of(row).score}")


def rank(row: Row, score: float | None) -> tuple[int, float]:
    """What sorts trials best first by a score: within their task, since another's is no better or worse; none last."""
    return TASKS.names().index(task_of(row).name), math.inf if score is None else -score


def written(row: Row) -> str:
    """The score as a user reads it."""
    return task_of(row).written(score(row))


def heading(tasks: Iterable[Task]) -> str:
    """The title of a column of scores of these tasks."""
    return " / ".join(dict.fromkeys(task.heading for task in tasks))
