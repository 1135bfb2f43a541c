"""The local record of a trial: how it is written, and what becomes of one that is not whole."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import Done, run_in_process

import ablate
from ablate.commands import explain, report
from ablate.errors import ConfigError
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
    assert [record["step"] for record in written(folders[0])] == [0, 5, 10]
    assert written(folders[0])[-1] == {"step": 10, "epoch": 2, "test/loss": 0.125}


# A folder whose files are missing, empty, cut off or another's, as seen by every command that reads it.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two trials."""
    folder = tmp_path_factory.mktemp("records")
    words = ["model=softmax_regression", "lr=0.1,0.5", "epochs=2", "data.train_limit=64", "workers=1", "tracking=none"]
    done = run_in_process(folder, "-m", *words)
    assert done.code == 0, done.err
    [sweep] = (folder / "runs").iterdir()
    return sweep


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    """A copy of that sweep, to be written to."""
    return shutil.copytree(finished, tmp_path / "sweep")


def explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> Done:
    try:
        with mock.patch.object(sys, "argv", ["explain", str(folder)]):
            explain.main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return Done(code, *capsys.readouterr())


def reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> Done:
    code = report.main([str(folder)])
    return Done(code, *capsys.readouterr())


@pytest.mark.parametrize("name", ["check.json", "metrics.jsonl", "mlflow.json", "init.npz", "final.npz"])
def test_a_trial_without_a_file_is_told_of_all_the_same(
    name: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "1" / name).unlink(missing_ok=True)
    assert explained(sweep / "1", capsys).code == 0
    assert reported(sweep, capsys).code == 0
    assert "2 trials: 2 combinations" in (sweep / "report.md").read_text(encoding="utf-8")
    assert list(ablate.load(sweep)["lr"]) == [0.1, 0.5]
    curves = ablate.load(sweep, curves=True)
    assert set(curves["trial"]) == ({0} if name == "metrics.jsonl" else {0, 1})


def test_a_sweep_without_any_metrics_has_no_curves(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in "01":
        (sweep / number / "metrics.jsonl").write_bytes(b"")
    curves = ablate.load(sweep, curves=True)
    assert len(curves) == 0
    assert list(curves) == ["sweep", "trial", "lr", "seed", "step", "epoch", "metric", "value"]
    assert reported(sweep, capsys).code == 0
    assert (sweep / "curves.png").is_file()


def test_a_trial_without_a_result_has_not_ended(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "1" / "result.json").unlink()
    assert "the trial has not ended yet" in explained(sweep / "1", capsys).err
    assert reported(sweep, capsys).code == 0
    assert "1 trial (seed 0)" in (sweep / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [lambda path: path.unlink(), lambda path: path.write_text("")], ids=["gone", "empty"])
def test_a_trial_without_its_configuration_is_reported_by_its_row(
    make: Callable[[Path], None], sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(sweep / "1" / ".hydra" / "config.yaml")
    assert "not the folder of a trial" in explained(sweep / "1", capsys).err
    assert reported(sweep, capsys).code == 0
    assert "- `lr`: 0.1, 0.5" in (sweep / "report.md").read_text(encoding="utf-8")


def test_a_last_line_that_is_half_written_is_left_out(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = ablate.load(sweep, curves=True)
    with (sweep / "1" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":7,"epoch":3,"test/loss":0.')
    assert ablate.load(sweep, curves=True).equals(before)
    assert explained(sweep / "1", capsys).code == 0
    assert reported(sweep, capsys).code == 0


DAMAGED = ["result.json", "check.json", "metrics.jsonl", ".hydra/config.yaml"]


@pytest.mark.parametrize("damage", ["cut", "else"])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_in_one_line(
    name: str, damage: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep / "1" / name
    whole = path.read_bytes()
    if name == "metrics.jsonl":
        path.write_bytes(whole.replace(b'"test/loss":', b'"test/loss"' if damage == "cut" else b'"test/loss":x', 1))
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"[]")
    done = explained(sweep / "1", capsys)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"ablate: {path}: damaged")
    assert len(done.err.splitlines()) == 1
    done = reported(sweep, capsys)
    if name == "check.json":
        assert done.code == 0
    else:
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"ablate: {path}: damaged")
    if name == "metrics.jsonl":
        with pytest.raises(ConfigError, match="damaged"):
            ablate.load(sweep, curves=True)


def test_a_damaged_sweep_is_refused_in_one_line(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "sweep.yaml").write_text("- 3\n")
    done = reported(sweep, capsys)
    assert (done.code, done.err.splitlines()) == (2, [done.err.strip()])
    assert done.err.startswith(f"ablate: {sweep / 'sweep.yaml'}: damaged")
    (sweep / "sweep.yaml").unlink()
    assert reported(sweep, capsys).code == 0
    (sweep / "results.csv").write_text("")
    with pytest.raises(ConfigError, match=r"results\.csv: damaged"):
        ablate.load(sweep)


def test_what_else_lies_in_a_sweeps_folder_is_no_trial(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (sweep / "report.md").read_text(encoding="utf-8")
    (sweep / "notes").mkdir()
    (sweep / "2").mkdir()
    (sweep / "notes.txt").write_text("mine")
    assert reported(sweep, capsys).code == 0
    assert (sweep / "report.md").read_text(encoding="utf-8") == before
    assert explained(sweep, capsys).err.endswith("here one of 0, 1\n")


def test_what_is_written_is_what_is_read(finished: Path, tmp_path: Path) -> None:
    old, new = TrialFolder(finished / "0"), TrialFolder(tmp_path)
    row, check = old.read_result(), old.read_check()
    assert row is not None
    assert check is not None
    new.write_result(row)
    new.write_check(check)
    new.write_delivery("f00", sent=True)
    for name in ("result.json", "check.json"):
        assert (tmp_path / name).read_bytes() == (finished / "0" / name).read_bytes()
    assert new.read_delivery() == {"run_id": "f00", "sent": True}
    assert old.read_delivery() == {"run_id": None, "sent": False}
    with np.load(finished / "0" / "final.npz") as arrays:
        assert {name: array.tolist() for name, array in old.read_final_weights().items()} == {
            name: arrays[name].tolist() for name in arrays.files
        }
    new.write_predictions(np.array([[0.25, 0.75]]))
    assert new.read_predictions().tolist() == [[0.25, 0.75]]
