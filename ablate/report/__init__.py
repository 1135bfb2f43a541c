"""The report of a sweep: `report.md` with a table of its cells, and `curves.png`.

`python -m ablate.report runs/<sweep> ...` rebuilds it; a sweep writes its own at its end.
"""

from collections.abc import Sequence
from pathlib import Path

from ablate.records.folder import replace_file
from ablate.report import cells, text

REPORT, CURVES = "report.md", "curves.png"


def write(sweeps: Sequence[Path], into: Path) -> Path:
    """Write the report of one sweep, or of several together, into a folder; returns the path of `report.md`.

    Raises ConfigError where a folder is not that of a sweep with at least one trial that has ended.
    """
    study = cells.read(sweeps)
    # Matplotlib takes half a second to import: only who draws pays for it.
    from ablate.report import plots

    plots.draw(study, into / CURVES)
    replace_file(into / REPORT, text.report(study, CURVES))
    return into / REPORT
