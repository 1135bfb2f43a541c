"""The CUDA backend: our own kernels, on a GPU through PyCUDA or emulated on the CPU."""

from ablate.backends.cuda.backend import CudaBackend

__all__ = ["CudaBackend"]
