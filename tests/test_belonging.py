"""A sweep over several options of a group, and keys that only some of them have."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Done
from test_cells import planned

import ablate
from ablate.errors import ConfigError
from ablate.trials.factors import level
from ablate.trials.trial import Trial

FOCAL = ["loss=ce loss.gamma=n/a", "loss=focal loss.gamma=1", "loss=focal loss.gamma=2"]
TURNED = ["loss.gamma=n/a loss=ce", "loss.gamma=1 loss=focal", "loss.gamma=2 loss=focal"]
MARGINS = ["loss=hinge loss.margin=2", "loss=ce loss.margin=n/a", "loss=squared_hinge loss.margin=2"]
MODELS = ["mlp model.hidden=[8]", "softmax_regression model.hidden=n/a"]
MOMENTA = ["sgd optimizer.momentum=n/a", "momentum optimizer.momentum=0.5", "momentum optimizer.momentum=0.9"]
SLOPES = ["activation=relu model.slope=n/a", *(f"activation=leaky_relu model.slope={slope}" for slope in (0.1, 0.3))]
OWN = ["loss=ce loss.args.alpha=n/a", "loss=custom loss.args.alpha=1", "loss=custom loss.args.alpha=2"]


@pytest.mark.parametrize(
    ("overrides", "trials"),
    [
        ("loss=ce,focal loss.gamma=1,2", FOCAL),
        # Each option once, wherever its key stands.
        ("loss.gamma=1,2 loss=ce,focal", TURNED),
        ("optimizer=sgd,momentum optimizer.momentum=0.5,0.9", [f"optimizer={each}" for each in MOMENTA]),
        ("model=mlp,softmax_regression model.hidden=[8]", [f"model={each}" for each in MODELS]),
        ("model=mlp model.activation=relu,leaky_relu model.slope=0.1,0.3", [f"model.{each}" for each in SLOPES]),
        ("stop=never,patience stop.patience=7", ["stop=never stop.patience=n/a", "stop=patience stop.patience=7"]),
        ("loss=ce,custom loss.target=custom_losses.CrossEntropy +loss.args.alpha=1,2", OWN),
        # Two options have it, and a third has not.
        ("loss=hinge,ce,squared_hinge loss.margin=2", MARGINS),
        ("loss=ce,mse loss.reduction=sum", ["loss=ce loss.reduction=sum", "loss=mse loss.reduction=sum"]),
        ("+cells.a={loss:ce} +cells.b={loss:focal} loss.gamma=1,2", FOCAL),
    ],
)
def test_a_key_applies_where_it_exists(overrides: str, trials: list[str]) -> None:
    keys = trials[0].replace("=", " ").split()[::2]
    found = ablate.compose(*overrides.split())
    assert [" ".join(f"{key}={one.overrides[key]}" for key in keys) for one in found] == trials
    for one, written in zip(found, trials, strict=True):
        # What is trained is what is said, and what a table says later.
        assert " ".join(f"{key}={_resolved(one, key)}" for key in keys) == written
        assert [level(one, key) == "n/a" for key in keys] == [word.endswith("=n/a") for word in written.split()]


def _resolved(one: Trial, key: str) -> str:
    value: Any = one.choices.get(key, one.config)
    for part in key.split(".") if key not in one.choices else ():
        value = value.get(part, "n/a") if isinstance(value, dict) else "n/a"
    return "n/a" if value is None else str(value).replace(" ", "").removesuffix(".0")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("loss=ce,mse loss.gamma=1,2", "loss.gamma=1: no such key here; only loss=focal has it"),
        ("loss=ce loss.gamma=1,2", "loss.gamma=1: no such key here; only loss=focal has it"),
        ("loss=focal,ce loss.gamma=-1", "loss.gamma=-1: expected number from 0"),
        ("loss=focal,ce loss.gamma=1,1", "trials 0 and 1 are the same"),
    ],
)
def test_a_key_that_none_has_and_a_value_given_twice(overrides: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ablate.run(ablate.compose(*overrides.split(), "tracking=none"))


def test_a_single_value_from_the_shell(ablate: Callable[..., Done]) -> None:
    """Hydra would apply it to the defaults, whose loss has no such key."""
    done = ablate("-m", "loss=ce,focal", "loss.gamma=3", "lr=0.1,0.2", "dry_run=true")
    assert planned(done) == [
        f"{loss} lr={lr}" for loss in ("loss=ce loss.gamma=n/a", "loss=focal loss.gamma=3") for lr in ("0.1", "0.2")
    ]
    alone = ablate("loss.gamma=3")
    assert (alone.code, alone.err) == (2, "ablate: loss.gamma=3: no such key here; only loss=focal has it\n")
