"""The local record of a trial."""

import json
from pathlib import Path

import numpy as np
import pytest

from ablate.records import recorder as records
from ablate.records.trial_folder import TrialFolder


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_epochs_records_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    clock = [0.0]
    monkeypatch.setattr(records.time, "monotonic", lambda: clock[0])
    metrics = records.Metrics([TrialFolder(folder) for folder in folders])
    clock[0] = 10.0
    metrics.add([0, 1], 0, 1, {"step/loss": np.array([0.5, np.inf])})
    assert written(folders[0]) == []
    metrics.add([0], 5, 1, {"test/loss": np.array([0.25, 7.0]), "test/accuracy": np.array([1.0, 0.0])})
    assert written(folders[0]) == [
        {"step": 0, "epoch": 1, "step/loss": 0.5},
        {"step": 5, "epoch": 1, "test/loss": 0.25, "test/accuracy": 1.0},
    ]
    assert written(folders[1]) == [{"step": 0, "epoch": 1, "step/loss": None}]
    metrics.add([0], 10, 2, {"test/loss": np.array([0.125, 7.0])})
    assert len(written(folders[0])) == 2
    metrics.close()
    assert written(folders[0])[-1] == {"step": 10, "epoch": 2, "test/loss": 0.125}
