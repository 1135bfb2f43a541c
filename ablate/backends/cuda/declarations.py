"""The declarations of `ablate.problem` for the kernels: a generated header, and the numbers in it.

`ablate/problem` declares every loss, output function and update rule once. The enumerations and the sizes of structs in
C++ are generated from it here, so that there is no second list to keep in step.
"""

from collections.abc import Iterator, Sequence

from ablate.problem.losses import LOSSES, BuiltinLoss, Loss
from ablate.problem.optimizers import MOST_CONSTANTS, MOST_DECAYS, NORM_EPSILON, OPTIMIZERS, Optimizer
from ablate.problem.outputs import OUTPUTS

# The sum of squares that clipping needs is taken in this many parts, at most one for each thread of a block.
NORM_PARTS = 64


def header() -> str:
    """The generated header, with which every file of `cuda/` is compiled."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "// Generated from ablate/problem by ablate/backends/cuda/declarations.py."
    yield "#pragma once"
    for name, kernels in (("LOSSES", _losses()), ("OUTPUTS", _outputs()), ("RULES", _rules())):
        yield f"#define {name}(X) {' '.join(f'X({kernel})' for kernel in kernels)}"
    yield f"#define LOSS_CONSTANTS {most_loss_constants()}"
    yield f"#define RULE_CONSTANTS {MOST_CONSTANTS}"
    yield f"#define RULE_CORRECTIONS {MOST_DECAYS}"
    yield f"#define NORM_PARTS {NORM_PARTS}"
    yield f"#define NORM_EPSILON {NORM_EPSILON}"


def _losses() -> list[str]:
    return [loss.kernel for loss in LOSSES if loss.kernel]


def _outputs() -> list[str]:
    return [output.kernel for output in OUTPUTS]


def _rules() -> list[str]:
    return [rule.kernel for rule in OPTIMIZERS if rule.kernel]


def most_loss_constants() -> int:
    """The largest number of own constants of any loss; at least 1, since C++ has no empty arrays."""
    kinds = [loss for loss in LOSSES if loss.kernel and issubclass(loss, BuiltinLoss)]
    return max(1, *(len(kind.model_validate(kind.defaults()).own_constants()) for kind in kinds))


def loss_number(loss: Loss) -> int:
    """Its number in `LossName`."""
    return _losses().index(str(loss.kernel))


def output_number(output: str) -> int:
    """Its number in `OutputName`."""
    return _outputs().index(OUTPUTS.get(output).kernel)


def rule_number(rule: Optimizer) -> int:
    """Its number in `RuleName`."""
    return _rules().index(str(rule.kernel))


def padded(numbers: Sequence[float], count: int) -> tuple[float, ...]:
    """The numbers, padded with zeros to the length of an array in a struct."""
    assert len(numbers) <= count, f"{len(numbers)} constants, the kernels have places for {count}"
    return (*numbers, *[0.0] * (count - len(numbers)))
