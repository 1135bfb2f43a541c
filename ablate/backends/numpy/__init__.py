"""The NumPy backend: K networks trained side by side on the CPU."""

from ablate.backends.numpy.engine import NumpyEngine
from ablate.backends.numpy.team import Member, Team

__all__ = ["Member", "NumpyEngine", "Team"]
