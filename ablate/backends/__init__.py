"""What computes the trials. `get` returns a backend by its name, `register` adds one."""

from ablate.backends.backend import Backend
from ablate.backends.cuda import CudaBackend
from ablate.backends.numpy import NumpyBackend
from ablate.problem.registry import Registry

__all__ = ["BACKENDS", "Backend", "devices", "get", "names", "register"]

BACKENDS: Registry[Backend] = Registry("backend")


def register(backend: Backend) -> Backend:
    """Add a backend under its name, so that `backend=NAME` chooses it."""
    return BACKENDS.add(backend.name, backend)


def get(name: str) -> Backend:
    """A backend by its name. Raises ConfigError, which lists the names, if there is none of that name."""
    return BACKENDS.get(name)


def names() -> list[str]:
    """The names of the backends, in the order in which they were registered."""
    return BACKENDS.names()


def devices() -> list[str]:
    """The devices of all backends."""
    return list(dict.fromkeys(device for backend in BACKENDS for device in backend.devices))


register(NumpyBackend())
register(CudaBackend())
