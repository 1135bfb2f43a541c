"""What `ablate.compose`, `ablate.run` and `ablate.prepare` do with what they may be given."""

import threading
from pathlib import Path
from typing import Any

import pytest

import ablate
from ablate.errors import ConfigError

SMALL = ("model=softmax_regression", "epochs=1", "data=xor", "loss=ce", "tracking=none", "workers=1")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_trials_of_several_calls_are_one_sweep() -> None:
    trials = [*ablate.compose(*SMALL, "lr=0.1,0.2"), *ablate.compose(*SMALL, "lr=0.3")]
    sweep = ablate.run((trial for trial in trials), "both")
    assert list(sweep.results["trial"]) == [0, 1, 2]
    assert list(sweep.results["lr"]) == [0.1, 0.2, 0.3]


def test_a_folder_holds_one_sweep() -> None:
    trials = ablate.compose(*SMALL, "lr=0.1,0.2")
    before = ablate.run(trials, "mine").results
    with pytest.raises(ConfigError, match=r"^mine: it holds a sweep already; give another folder"):
        ablate.run(trials[:1], "mine")
    assert ablate.load("mine").equals(before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"trials=\[\]: expected one or more trials"),
        (["lr=0.1"], r"trials=\['lr=0.1'\]: expected one or more trials"),
        (3, r"trials=\[3\]: expected one or more trials"),
    ],
)
def test_run_says_what_it_expects(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ablate.run(given, "mine")
    assert not Path("mine").exists()


def test_one_trial_need_not_be_in_a_list() -> None:
    [trial] = ablate.compose(*SMALL)
    sweep = ablate.run(trial, "mine")  # type: ignore[arg-type]
    assert len(sweep.results) == 1


def test_the_same_trial_twice_is_refused() -> None:
    [trial] = ablate.compose(*SMALL, "lr=0.1")
    with pytest.raises(ConfigError, match=r"lr=0.1: trials 0 and 1 are the same"):
        ablate.run([trial, trial], "mine")


def test_a_dry_run_is_not_trained() -> None:
    with pytest.raises(ConfigError, match=r"^dry_run=true: "):
        ablate.run(ablate.compose(*SMALL, "dry_run=true"), "mine")
    assert not Path("mine").exists()


def test_a_sweep_runs_in_any_thread() -> None:
    """A notebook or a server may not run it in the main thread, which alone may handle signals."""
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(ablate.run(ablate.compose(*SMALL), "mine")))
    thread.start()
    thread.join()
    [sweep] = ended
    assert list(sweep.results["status"]) == ["finished"]


def test_compose_and_prepare_say_what_they_expect() -> None:
    with pytest.raises(ConfigError, match=r"^\['lr=1'\]: expected overrides as separate strings"):
        ablate.compose(["lr=1"])  # type: ignore[arg-type]
    [trial] = ablate.compose(*SMALL)
    with pytest.raises(ConfigError, match=r"^settings: expected a trial's settings, not Trial"):
        ablate.prepare(trial)  # type: ignore[arg-type]


def test_a_range_that_goes_nowhere_is_no_sweep() -> None:
    with pytest.raises(ConfigError, match=r"seed=range\(0,5,0\): 0 trials"):
        ablate.compose("seed=range(0,5,0)")


def test_a_preset_has_to_be_utf8() -> None:
    folder = Path("conf/experiment")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_bytes(b"# @package _global_\ndescription: caf\xe9\n")
    with pytest.raises(ConfigError, match="utf-8"):
        ablate.compose("experiment=mine", config_dir="conf")


def test_a_preset_without_its_first_line_is_told_so() -> None:
    folder = Path("conf/experiment")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("epochs: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^experiment=mine: .*# @package _global_"):
        ablate.compose("experiment=mine", config_dir="conf")


def test_a_trial_does_not_inherit_an_older_result() -> None:
    """A folder that is used again must not pass off what an older trial left there."""
    [trial] = ablate.compose(*SMALL)
    sweep = ablate.run([trial], "mine")
    folder = sweep.folder.trial(0)
    assert folder.read_result() is not None
    assert folder.read_metrics()
    folder.create(trial)
    assert folder.read_result() is None
    assert not folder.read_metrics()
    with pytest.raises(FileNotFoundError):
        folder.read_final_weights()


def test_the_package_lists_its_way_in() -> None:
    assert {"compose", "run", "load", "prepare"} <= set(dir(ablate))
    assert all(callable(getattr(ablate, name)) for name in ("compose", "run", "load", "prepare"))
