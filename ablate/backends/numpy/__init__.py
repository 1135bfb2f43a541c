"""The NumPy backend: K networks trained side by side on the CPU."""

from ablate.backends.numpy.engine import NumpyEngine
from ablate.backends.numpy.team import Member, Team, meeting_places

__all__ = ["Member", "NumpyEngine", "Team", "meeting_places"]
