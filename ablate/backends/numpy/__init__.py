"""The NumPy backend: K networks trained side by side on the CPU."""

from ablate.backends.numpy.engine import NumpyEngine

__all__ = ["NumpyEngine"]
