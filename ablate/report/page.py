"""Writing a report: the page with a table of the cells, and the picture beside it."""

from collections.abc import Sequence
from pathlib import Path

from ablate.records.files import replace_file
from ablate.records.sweep_folder import SweepFolder
from ablate.report import cells, text


def write(sweeps: Sequence[Path], into: Path) -> Path:
    """Write the report of one sweep, or of several together, into a folder; returns the path of the page.

    Raises ConfigError where a folder is not that of a sweep with at least one trial that has ended.
    """
    study, place = cells.read(sweeps), SweepFolder(into)
    # Matplotlib takes half a second to import: only who draws pays for it.
    from ablate.report import plots

    replace_file(place.curves, plots.draw(study))
    replace_file(place.report, text.report(study, place.curves.name))
    return place.report
