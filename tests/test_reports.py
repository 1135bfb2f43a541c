"""docs/reports.md says of each public report what the program says, rightly or not."""

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from conftest import ROOT

from ablate.execution import sweep
from docs.studies import report_inputs, reports
from docs.studies.reports import FURTHER, REPORTS, Report

PAGE = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the reports' data, which is the current one."""
    folder = tmp_path_factory.mktemp("reports")
    report_inputs.write(folder)
    with chdir(folder):
        yield folder


@pytest.mark.parametrize("report", [*REPORTS, *FURTHER], ids=lambda report: report.situation)
def test_it_says_of_a_report_what_the_page_says(
    report: Report, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_report", lambda *given: None)
    [row] = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if f"`{report.command}`" in line]
    is_right = row[-1].startswith("**yes**")
    assert report.is_answered(row[2]) == is_right
    if report.is_answered(row[2].partition(reports.ADVISES)[0]):
        # The advice need not be tried.
        monkeypatch.setattr(reports, "changes", lambda known: [])
    said = reports.answer(report, tmp_path, reports.in_memory)
    assert report.is_answered(said) == is_right, said


def test_the_page_counts_them() -> None:
    for many in (REPORTS, FURTHER):
        rows = [line for line in PAGE.splitlines() if any(f"`{report.command}`" in line for report in many)]
        right = sum("| **yes**: " in line for line in rows)
        assert f"{right} of {len(many)} are answered rightly" in PAGE
    assert len(FURTHER) == 10
    assert all(report.address.startswith("http") for report in FURTHER)
