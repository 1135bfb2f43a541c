"""The score by which a trial is compared with others, and what it is called: accuracy or, of number targets, R²."""

from collections.abc import Iterable, Mapping

from ablate.problem.tasks import CLASSIFICATION, TASKS, Task
from ablate.records.trial_folder import Row

__all__ = ["HEADINGS", "Task", "heading", "score", "task_of", "written"]

# The titles of columns of scores.
HEADINGS = {task.heading for task in TASKS}


def task_of(row: Mapping[str, object]) -> Task:
    """What the trial's network was to learn."""
    return TASKS.get(str(row.get("task", CLASSIFICATION.name)))


def score(row: Row) -> float | None:
    """The score on the test set."""
    if task_of(row).score == "accuracy":
        return row["test_accuracy"]
    return row.get("scores", {}).get(f"test_{task_of(row).score}")


def written(row: Row) -> str:
    """The score as a user reads it."""
    return task_of(row).written(score(row))


def heading(tasks: Iterable[Task]) -> str:
    """The title of a column of scores of these tasks."""
    return " / ".join(dict.fromkeys(task.heading for task in tasks))
