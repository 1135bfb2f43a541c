"""The NumPy backend: K networks trained side by side on the CPU."""

from ablate.backends.numpy.backend import NumpyBackend

__all__ = ["NumpyBackend"]
