"""The random numbers of dropout: a trial draws each by its place, so they do not depend on what was drawn before.

The number for a unit of a sample in a step is found by the trial's key, the number of the step, the dropout layer and
the place of sample and unit in the batch: whoever computes which part of the batch, on whichever device, gets the same.
The generator is Philox4x64-10 (Salmon et al., 2011), a function of a key and a counter; docs/reproduce.md has the
recipe.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# The numbers that one value of the counter gives.
BLOCK = 4


def key_of(seed: int) -> int:
    """The key of a trial's dropout: the third stream of its seed, beside those of weights and order."""
    return int(np.random.SeedSequence(seed, spawn_key=(2,)).generate_state(1, np.uint64)[0])


class Uniform:
    """The numbers in [0, 1) of one key: a sequence for every step and dropout layer."""

    def __init__(self, key: int) -> None:
        self.bits = np.random.Philox(key=key)
        self.generator = np.random.Generator(self.bits)
        # As after its creation: nothing is left of a block.
        self.state: Any = self.bits.state

    def fill(self, into: Array, step: int, layer: int, first: int) -> None:
        """Fill an array of float64 with the numbers of a step and a layer, from number `first` of their sequence on.

        A block is computed after the counter is raised by one.
        """
        self.state["state"]["counter"][:] = (first // BLOCK, layer, step, 0)
        self.bits.state = self.state
        self.generator.random(first % BLOCK)
        self.generator.random(out=into)
