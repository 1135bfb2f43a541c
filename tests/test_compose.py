"""A job made from another is the job that Hydra itself composes."""

from collections.abc import Iterator

import helpers
import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ablate.commands import launcher
from ablate.commands.composer import Composer
from ablate.config.groups import conf_dir

JOBS = {
    "values": [["lr=0.1", "seed=0"], ["lr=0.5", "seed=1"], ["lr=1e-3", "seed=2"]],
    "groups and values": [["loss=ce", "lr=0.1"], ["loss=mse", "lr=0.1"], ["loss=ce", "lr=0.2"], ["loss=mse", "lr=0.2"]],
    "kinds of values": [
        [f"description={value}", "shuffle=false"] for value in ("a", "'1'", "null", "2", "true", "1.5")
    ],
    "nested keys": [["model=mlp", "model.units=7", "stop=patience", f"stop.patience={n}"] for n in (1, 2)],
    "lists": [
        ["model=mlp", f"model.hidden={hidden}", f"seed={seed}"] for hidden in ("[3]", "[4,5]") for seed in (0, 1)
    ],
    "added and forced": [["loss=custom", f"+loss.args.alpha={n}", f"++lr={n}"] for n in (1, 2)],
    "one key twice, once forced": [["lr=1", f"++lr={rate}"] for rate in (8, 9)],
    "one key twice": [["lr=0.1", f"lr={rate}"] for rate in (0.3, 0.4)],
    "a value above and below": [
        ["optimizer=adam", "optimizer.beta1=0.5", f"optimizer={{beta1: 0.{n}}}"] for n in (6, 7)
    ],
    "interpolations": [["output_lr=${lr}", f"lr={rate}"] for rate in (0.3, 0.4)],
    "presets": [["experiment=lenet5_mnist_small", f"seed={seed}", f"lr={rate}"] for seed in (0, 1) for rate in (1, 2)],
    "cells": [
        ["loss=mse", "model.output=sigmoid", "cells='loss model.output'", "experiment=digit_mlp_small", f"seed={seed}"]
        for seed in (0, 1)
    ],
    "no cells": [["cells=null", "experiment=digit_mlp_small", f"seed={seed}"] for seed in (0, 1)],
    "hydra's own": [["hydra.job.name=x", f"seed={seed}"] for seed in (0, 1)],
    "deleted": [["~loss.from_logits", f"seed={seed}"] for seed in (0, 1)],
}


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    launcher.register(launcher.run)
    with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="ablate"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def master(loader: ConfigLoader) -> DictConfig:
    return loader.load_configuration("config", [], RunMode.MULTIRUN)


def as_text(composed: DictConfig) -> str:
    """All of a configuration, as it stands and resolved; a text tells a number from its digits."""
    plain = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    return f"{OmegaConf.to_container(composed)}\n{OmegaConf.to_container(plain, resolve=True)}"


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_what_hydra_composes(loader: ConfigLoader, master: DictConfig, name: str) -> None:
    composer = Composer(loader, master)
    for number, job in enumerate(JOBS[name]):
        expected = loader.load_sweep_config(master, list(job))
        with open_dict(expected):  # which Hydra leaves to its launchers
            expected.hydra.job.num, expected.hydra.job.id = number, f"ablate_{number}"
        assert as_text(composer.compose(job, number)) == as_text(expected)


def test_jobs_of_a_kind_are_composed_once(loader: ConfigLoader, master: DictConfig) -> None:
    composer = Composer(loader, master)
    jobs = [["model=mlp", f"lr={rate}", f"model.units={units}"] for rate in (1, 2) for units in range(9)]
    composed = [composer.compose(job, 0) for job in jobs]
    assert len(composer.known) == 1
    assert {(one.lr, one.model.units) for one in composed} == {(rate, units) for rate in (1, 2) for units in range(9)}


@pytest.mark.parametrize(
    "words",
    [
        "lr=3e38 seed=2 model=mlp model.hidden=[6,5] loss=focal loss.gamma=0.5 optimizer=adam optimizer.beta1=0.5",
        "data=xor model=mlp init=normal init.scale=0.2 loss=custom loss.target=custom_losses.Off +loss.args.factor=1.5",
    ],
)
def test_settings_that_the_tests_put_together_are_the_trials(words: str) -> None:
    assert helpers.settings(*words.split()) == helpers.trial(*words.split()).settings
