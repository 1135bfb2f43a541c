"""The presets: each composes and passes its checks, and the small ones say what the posts' ablations say."""

import gzip
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Done, cell_of, cells_of, run_in_process

from ablate.config import groups as config
from ablate.records.sweep_folder import SweepFolder
from ablate.trials.factors import factors, level

PRESETS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
POSTS = ["lenet5_mnist", "lenet5_logits", "xor_softmax", "softmax_mnist", "digit_mlp"]

Cells = Mapping[tuple[str, ...], Mapping[str, Any]]


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four IDX files of noise in MNIST's shape: enough to compose on where MNIST itself is not."""
    folder = tmp_path_factory.mktemp("mnist")
    rng = np.random.default_rng(0)
    for part, count in (("train", 1000), ("t10k", 20)):
        pixels = rng.integers(0, 256, count * 28 * 28, np.uint8).tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        files = {
            f"{part}-images-idx3-ubyte.gz": struct.pack(">IIII", 2051, count, 28, 28) + pixels,
            f"{part}-labels-idx1-ubyte.gz": struct.pack(">II", 2049, count) + labels,
        }
        for name, content in files.items():
            (folder / name).write_bytes(gzip.compress(content, 1))
    return folder


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cells]:
    """Runs a preset and gives its trials' rows by cell and levels of the other factors; each preset once."""
    done: dict[tuple[str, ...], Cells] = {}

    def run(name: str, *arguments: str) -> Cells:
        if (name, *arguments) not in done:
            folder = tmp_path_factory.mktemp(name)
            ended = run_in_process(folder, f"experiment={name}", "tracking=none", *arguments)
            assert ended.code == 0, ended.err
            [sweep] = (folder / "runs").iterdir()
            assert (sweep / "report.md").read_text(encoding="utf-8").startswith(f"# {config.presets()[name]}\n")
            found = SweepFolder(sweep).ended()
            inside = {key for values in cells_of(name).values() for key in values}
            keys = [key for key in factors(found) if key not in inside]
            done[name, *arguments] = {
                (*([cell_of(name, trial.row)] if inside else []), *(str(level(trial, key)) for key in keys)): {
                    **trial.row,
                    "folder": trial.folder.path,
                }
                for trial in found
            }
        return done[name, *arguments]

    return run


def test_every_post_has_its_presets() -> None:
    assert set(RUN) < set(PRESETS)
    assert {*POSTS, *(f"{name}_small" for name in POSTS if name != "xor_softmax")} <= set(PRESETS)


# Run below, or by `test_zoo`.
RUN = ["bugs_small", "digit_mlp_small", "lenet5_logits_small", "lenet5_mnist_small", "softmax_mnist_small"]


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in RUN])
def test_preset_composes_and_passes_its_checks(
    name: str, mnist: Path, ablate: Callable[..., Done], tmp_path: Path
) -> None:
    text = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    where = [f"data.dir={mnist}"] if "/data: mnist" in text else []
    # One seed, and of 112 trials a quarter: composing them takes the time.
    fewer = ["seed=0", *(["loss=bce"] if name == "softmax_mnist" else [])]
    done = ablate(f"experiment={name}", "dry_run=true", *fewer, *where)
    assert done.code == 0, done.err
    assert int(done.out.split(" trials")[0]) > 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PRESETS)
def test_preset_opens_with_what_it_shows_and_its_command(name: str) -> None:
    lines = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = lines[: lines.index("defaults:")]
    assert comment[0] == "# @package _global_"
    assert all(line.startswith("#") for line in comment)
    assert f"#   python -m ablate experiment={name}" in comment
    assert len(comment) > 3
    assert config.presets()[name].endswith(("?", ")", "."))


def test_help_lists_every_preset_with_its_sentence(ablate: Callable[..., Done]) -> None:
    told = ablate("--help").out
    for name, sentence in config.presets().items():
        assert f"experiment={name}" in told
        assert sentence
        assert sentence in told


def test_a_key_of_the_command_overrides_the_presets(ablate: Callable[..., Done]) -> None:
    done = ablate("experiment=lenet5_mnist_small", "seed=3", "lr=0.2", "dry_run=true")
    assert done.out.startswith("4 trials, factors: residual, loss\n")
    assert "lr" not in done.out.split("cohort")[0]
    assert done.out.count("seed=3") == 4
    swept = ablate("-m", "experiment=digit_mlp_small", "bug=none", "output_lr=3,4", "dry_run=true")
    assert swept.out.startswith("6 trials, factors: loss, model.output, output_lr\n"), swept.err


@pytest.mark.parametrize("written", ["experiment=lenet", "experiment=7"])
def test_an_unknown_preset_is_refused_in_one_line(written: str, ablate: Callable[..., Done], tmp_path: Path) -> None:
    done = ablate(written)
    assert done.code == 2
    assert done.out == ""
    [line] = done.err.splitlines()
    assert line.startswith("ablate: experiment")
    assert "lenet5_mnist_small" in line
    assert not list(tmp_path.iterdir())


# What the presets say


def test_lenet5_the_sign_decides_and_then_loss_and_rate_together(cells: Callable[..., Cells]) -> None:
    found = cells("lenet5_mnist_small", "workers=1")
    verdicts = {key: row["verdict"] for key, row in found.items()}
    assert {verdicts["p-y", loss, lr] for loss in ("mse", "ce") for lr in ("0.1", "0.5")} == {"ascending"}
    assert verdicts["y-p", "ce", "0.5"] == "collapsed"
    for right in (("mse", "0.1"), ("mse", "0.5"), ("ce", "0.1")):
        assert verdicts["y-p", *right] == "trained"
    assert "residual=y-p" in found["p-y", "ce", "0.1"]["why"]


def test_the_relu_on_the_logits_is_not_the_cause(cells: Callable[..., Cells]) -> None:
    found = cells("lenet5_logits_small", "workers=1")
    assert len(found) == 8
    for (_, *cell), row in found.items():
        assert row["verdict"] == ("collapsed" if cell == ["ce", "0.5"] else "trained")


@pytest.fixture(scope="module")
def xor(cells: Callable[..., Cells]) -> Cells:
    return cells("xor_softmax", "workers=1", "epochs=1500", "seed=0", "lr=0.001,0.5")


def _outputs(row: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.load(row["folder"] / "predictions.npz")["outputs"])


def _confidence(row: Mapping[str, Any]) -> float:
    lines = (row["folder"] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["test/confidence"])


def test_xor_with_the_wrong_sign_goes_to_exactly_0_and_1(xor: Cells) -> None:
    row = xor["softmax_ce", "p-y", "0.5"]
    assert row["verdict"] == "ascending"
    assert row["test_accuracy"] == 0.5
    assert set(np.unique(_outputs(row))) == {0.0, 1.0}
    assert _confidence(row) == 1.0
    # Through the epsilon the gradient dies just before: 0 to many digits.
    assert _outputs(xor["softmax_ce_eps", "p-y", "0.5"]).min(axis=1).max() < 1e-10


def test_xor_climbs_without_bound_or_to_the_cap_of_the_epsilon(xor: Cells) -> None:
    assert xor["softmax_ce", "p-y", "0.5"]["train_loss"] > 1e4
    cap = -np.log(1e-10) / 2
    assert xor["softmax_ce_eps", "p-y", "0.5"]["train_loss"] == pytest.approx(cap, abs=0.001)
    assert cap - 0.3 < xor["softmax_ce_eps", "p-y", "0.001"]["train_loss"] < cap


def test_xor_the_sign_alone_is_not_enough(xor: Cells) -> None:
    assert all(row["verdict"] == "ascending" for (_, residual, _), row in xor.items() if residual == "p-y")
    for cell in ("one_sigmoid_mse", "softmax_ce", "softmax_ce_eps"):
        assert xor[cell, "y-p", "0.001"]["verdict"] in ("plateau", "collapsed", "stuck")
        assert xor[cell, "y-p", "0.5"]["verdict"] == "trained"


def test_softmax_the_relu_on_the_logits_keeps_it_low_and_the_rate_slow(cells: Callable[..., Cells]) -> None:
    found = cells("softmax_mnist_small", "workers=1")
    verdicts = {key: row["verdict"] for key, row in found.items()}
    for loss in ("ce", "bce"):
        assert verdicts["sgd_2e-1", "linear", loss] == verdicts["momentum_2e-3", "linear", loss] == "trained"
        assert verdicts["sgd_1e-3", "linear", loss] == "slow"
        # The rule to stop: twenty times above 0.91.
        assert 20 <= found["sgd_2e-1", "linear", loss]["epochs"] < found["sgd_1e-3", "linear", loss]["epochs"] == 60
    assert not any(verdict == "trained" for (_, logits, _), verdict in verdicts.items() if logits == "relu")
    assert verdicts["sgd_2e-1", "relu", "bce"] == "collapsed"
    best = {
        logits: max(row["test_accuracy"] for key, row in found.items() if key[1] == logits)
        for logits in ("relu", "linear")
    }
    assert best["linear"] > 0.9 > 0.7 > best["relu"]


def test_digit_mlp_the_rate_of_the_output_layer_and_the_loss_decide(cells: Callable[..., Cells]) -> None:
    found = cells("digit_mlp_small", "workers=1")
    accuracy = {key: row["test_accuracy"] for key, row in found.items()}
    for bug in ("none", "missing_divisor"):
        assert found["softmax_ce", bug, "0.1"]["verdict"] == "trained"
        assert accuracy["softmax_ce", bug, "0.1"] > accuracy["softmax_ce", bug, "1"] > accuracy["softmax_ce", bug, "10"]
        # Squared error over sigmoids, saturated at the start, hardly moves at the rate at which cross-entropy trains.
        assert accuracy["sigmoid_mse", bug, "0.1"] < 0.2 < accuracy["sigmoid_bce", bug, "0.1"]
        assert all(
            found[cell, bug, "10"]["verdict"] != "trained" for cell in ("softmax_ce", "sigmoid_mse", "sigmoid_bce")
        )


def test_digit_mlp_the_check_names_the_missing_factor(cells: Callable[..., Cells]) -> None:
    for (_, bug, _), row in cells("digit_mlp_small", "workers=1").items():
        assert ("divides the pre-activation by a constant" in row["why"]) == (bug == "missing_divisor")
