"""Samples as people keep them: vectors and images, the axis of their channels, the axis of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ablate.errors import ConfigError
from ablate.problem.data.origin import Origin

Channels = Literal["auto", "first", "last"]
CHANNELS_HELP = (
    "where images (N, ., ., .) have their channels: first (N, C, H, W), last (N, H, W, C), "
    "auto by the shape, with a notice"
)
SHAPE_HELP = "the shape of a sample whose values are given in one row: [H,W], [C,H,W], or [D] for a vector"

_USUAL_CHANNELS = (1, 3, 4)


def arranged(
    origin: Origin,
    x: Sequence[NDArray[Any]],
    channels: Channels,
    shape: Sequence[int] | None,
    names: Sequence[str] = ("x_train", "x_test"),
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The samples of training and test set as `(N, D)` or `(N, C, H, W)`; `names` are what the arrays are called.

    They are `(N, D)`, `(N, H, W)`, `(N, C, H, W)` or `(N, H, W, C)`, or of any shape if `shape` is given. Raises
    ConfigError where shapes do not fit, and leaves a notice where the shape alone decided about the channels.
    """
    train, test = (
        array if shape is None else _shaped(name, array, shape) for name, array in zip(names, x, strict=True)
    )
    if test.shape[1:] != train.shape[1:]:
        shapes = f"{names[1]} has samples of shape {test.shape[1:]}, {names[0]} of {train.shape[1:]}"
        raise origin.error(f"{shapes}; make them equal")
    if train.ndim != 4:
        if channels != "auto":
            raise ConfigError(f"data.channels={channels}: {names[0]} has shape {train.shape}, no axis of channels")
        return (train, test) if train.ndim == 2 else (train[:, np.newaxis], test[:, np.newaxis])
    if channels == "auto":
        channels = _by_shape(origin, names[0], train.shape[1:])
    return (train, test) if channels == "first" else (np.moveaxis(train, 3, 1), np.moveaxis(test, 3, 1))


def check(origin: Origin, name: str, x: NDArray[Any]) -> None:
    """Raise `origin.error` for what are no samples: by kind, shape and values."""
    if x.dtype.kind not in "biuf":
        advice = f"; {name}.astype(float) where they are numbers" if x.dtype.kind in "US" else ""
        raise origin.error(f"{name} is of dtype {x.dtype}; bools, integers or floats were expected{advice}")
    if x.ndim not in (2, 3, 4):
        advice = f"; {name}.reshape(-1, 1) if a sample is one number" if x.ndim == 1 else ""
        raise origin.error(
            f"{name} has shape {x.shape}; (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C) was expected{advice}"
        )
    if x.size == 0:
        raise origin.error(f"{name} is empty, its shape is {x.shape}; at least one sample was expected")
    bad = ~np.isfinite(x)
    if bad.any():
        first = [int(i) for i in np.unravel_index(int(bad.argmax()), x.shape)]
        raise origin.error(f"{name} has {bad.sum()} NaN or infinite values, the first at {first}; replace them")


def _shaped(name: str, x: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    written = f"data.shape=[{','.join(map(str, shape))}]"
    if not 1 <= len(shape) <= 3:
        raise ConfigError(f"{written}: expected [H,W], [C,H,W], or [D] for a vector")
    values = int(np.prod(x.shape[1:]))
    if values != int(np.prod(shape)):
        raise ConfigError(f"{written}: {int(np.prod(shape))} values, but a sample of {name} has {values}")
    return x.reshape(len(x), *shape)


def _by_shape(origin: Origin, name: str, shape: tuple[int, ...]) -> Literal["first", "last"]:
    """Where the channels of images of this shape are: on the axis with a usual number of them, else on the odd one."""
    first, middle, last = shape
    likely = {"first": first in _USUAL_CHANNELS, "last": last in _USUAL_CHANNELS}
    if likely["first"] == likely["last"]:
        likely = {"first": middle == last != first, "last": first == middle != last}
    if likely["first"] and not likely["last"]:
        return "first"
    if likely["last"]:
        taken = f"taken as (N, H, W, C), images of {first}x{middle} with {_counted(last)}"
        origin.notice(
            f"{name} has shape (N, {first}, {middle}, {last}), {taken}; data.channels=last confirms it, "
            "data.channels=first takes the other end"
        )
        return "last"
    taken = f"taken as (N, C, H, W), images of {middle}x{last} with {_counted(first)}"
    origin.notice(
        f"{name} has shape (N, {first}, {middle}, {last}), {taken}; data.channels=first confirms it, "
        "data.channels=last takes the other end"
    )
    return "first"


def _counted(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"
