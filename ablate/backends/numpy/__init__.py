"""The NumPy backend: K networks trained side by side on the CPU."""

from ablate.backends.numpy.engine import NumpyEngine
from ablate.backends.numpy.process_group import ALONE, ProcessGroup, Rendezvous, rendezvous_folders

__all__ = ["ALONE", "NumpyEngine", "ProcessGroup", "Rendezvous", "rendezvous_folders"]
