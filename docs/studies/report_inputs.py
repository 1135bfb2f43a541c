"""The data of the reports retold in docs/reports.md, made by recipe: `python -m docs.studies.report_inputs FOLDER`.

Nobody's own data are here. Each set has what the report says of it: its scale, its balance, its labels, its shape.
"""

import argparse
import struct
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

Array = np.ndarray[Any, np.dtype[Any]]
ROWS, TEST = 700, 300


def write(folder: Path) -> None:
    """Write every data set into a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = _digits()
    unit = (images / 16).astype(np.float32)
    flat = unit.reshape(len(unit), -1)
    pixels = np.round(images / 16 * 255).astype(np.uint8)
    _save(folder, "rare_class", *_rare_class(), test=500)
    _save(folder, "pixels", pixels, labels)
    _save(folder, "columns", *_columns(), test=436)
    _save(folder, "labels_from_1", flat, labels + 1)
    _save(folder, "channels_last", unit[..., None], labels)
    _save(folder, "line", *_line(), test=40)
    _save(folder, "prices", *_prices())
    _save(folder, "below_0", *_below_0(), test=40)
    _save(folder, "two_classes", flat[labels < 2], labels[labels < 2], test=50)
    _write_idx(folder / "idx" / "MNIST" / "raw", pixels, labels)
    rows = np.column_stack([labels, pixels.reshape(len(pixels), -1)])
    header = ",".join(["label", *(f"pixel{number}" for number in range(64))])
    np.savetxt(folder / "label_first.csv", rows, "%d", ",", header=header, comments="")


def _save(folder: Path, name: str, x: Array, y: Array, test: int = TEST) -> None:
    """The last `test` rows are the test set."""
    np.savez(folder / f"{name}.npz", x_train=x[:-test], y_train=y[:-test], x_test=x[-test:], y_test=y[-test:])


def _digits() -> tuple[Array, Array]:
    """Some of scikit-learn's digits (ROWS, 8, 8), 0 to 16, in an order of our own, and their labels."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:ROWS]
    return digits.images[order], digits.target[order].astype(np.int64)


def _rare_class() -> tuple[Array, Array]:
    """Two classes far apart, of which one has 4 rows of 100."""
    rng = np.random.default_rng(1)
    y = (rng.random(2000) < 0.04).astype(np.int64)
    return (rng.normal(size=(2000, 10)) + 3 * y[:, None]).astype(np.float32), y


def _columns() -> tuple[Array, Array]:
    """Columns as a table of houses has them, from areas in thousands to counts of bathrooms; dear or cheap."""
    rng = np.random.default_rng(2)
    latent = rng.normal(size=1460)
    areas = [
        scale * np.exp(0.35 * (0.7 * latent + rng.normal(size=1460))) for scale in (9500.0, 1000.0, 480.0)
    ]  # of the plot, the basement, the garage
    counts = [
        np.clip(np.round(middle + spread * (0.6 * latent + rng.normal(size=1460))), 0, None)
        for middle, spread in ((6, 1), (5, 1), (2, 0.6), (1, 0.6), (3, 0.8), (6, 1.5), (1, 0.6))
    ]
    dear = latent + 0.6 * rng.normal(size=1460) > 0
    return np.column_stack([areas[0], *counts[:2], areas[1], *counts[2:], areas[2]]).astype(np.float32), dear.astype(
        np.int64
    )


def _line() -> tuple[Array, Array]:
    """y = 2 x at x = 0, 1, ... 199."""
    x = np.random.default_rng(3).permutation(200).astype(np.float32)
    return x[:, None], 2 * x


def _prices() -> tuple[Array, Array]:
    """Columns of deviation 1, and prices of some hundred thousands, of which the columns explain most."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1300, 12))
    price = 180_000 * np.exp(0.35 * x @ rng.normal(size=12) / np.sqrt(12) + 0.1 * rng.normal(size=1300))
    return x.astype(np.float32), price.astype(np.float32)


def _below_0() -> tuple[Array, Array]:
    """A falling logistic curve with its sign turned: every target is below 0."""
    x = np.random.default_rng(5).permutation(np.linspace(-1, 1, 240)).astype(np.float32)
    return x[:, None], -1 / (np.exp(10 * x) + 1)


def _write_idx(folder: Path, images: Array, labels: Array) -> None:
    """MNIST's format, under the names that unpacking gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    large = np.repeat(np.repeat(images, 3, axis=1), 3, axis=2)
    large = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    for part, rows in (("train", slice(None, -TEST)), ("t10k", slice(-TEST, None))):
        pixels, digits = large[rows], labels[rows].astype(np.uint8)
        header = struct.pack(">IIII", 2051, *pixels.shape)
        (folder / f"{part}-images.idx3-ubyte").write_bytes(header + pixels.tobytes())
        (folder / f"{part}-labels.idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(digits)) + digits.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.studies.report_inputs", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files are written")
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
