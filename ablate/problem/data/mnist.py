"""MNIST, or what has its form, from four IDX files: in a folder of your own, or downloaded once into the cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import math
import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data.dataset import Raw, brief
from ablate.problem.data.labels import POLICY_HELP, Labels, Policy, read
from ablate.problem.data.normalisation import NORMALIZE_HELP, Normalize
from ablate.problem.data.origin import Origin
from ablate.problem.data.sets import DATA_SETS, DataSet

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SHA256 = {  # of the uncompressed files; a mirror may compress them differently
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
CLASSES = 10
TIMEOUT_SECONDS = 5.0

# train-images-idx3-ubyte, train-images.idx3-ubyte.gz, emnist-letters-test-labels-idx1-ubyte, ...
_NAMES = re.compile(
    r"(emnist-(?P<split>\w+)-)?(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13][-.]ubyte(\.gz)?",
    re.IGNORECASE,
)
_DEPTH = 2  # folders below the one named: torchvision has MNIST/raw

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_ADVICE = "get the file again, or use data=digits, which needs none"

_log = logging.getLogger("ablate")


class _File(NamedTuple):
    path: Path
    content: bytes  # uncompressed


def load(dir: str | None, split: str | None = None, policy: Policy = "auto") -> Raw:
    """60,000 images to train and 10,000 to test, `(N, 1, 28, 28)` with pixels 0..255, ten classes.

    The files are looked for in `dir` (the key `data.dir`), else in `$ABLATE_DATA/mnist`, else in the cache
    (`$ABLATE_CACHE`, or the user's own), into which they are downloaded if necessary. In a folder there may be other
    images and labels in the same form; `split` is the part of EMNIST wanted, `policy` says what the labels mean;
    with `auto` those of 0 to 9 are MNIST's ten classes, whichever of them occur.
    Raises ConfigError if a file is missing, damaged or of another kind, or if the download fails.
    """
    if dir:
        folder = Path(dir).expanduser()
        origin = Origin(f"data.dir={dir}")
        files = _from_folder(folder, origin, split)
    elif os.environ.get("ABLATE_DATA"):
        folder = Path(os.environ["ABLATE_DATA"]).expanduser() / "mnist"
        origin = Origin(f"ABLATE_DATA={os.environ['ABLATE_DATA']}")
        files = _from_folder(folder, origin, split)
        _compare(origin, files)
    else:
        folder = _cache()
        origin = Origin("data=mnist")
        if split:
            raise ConfigError(f"data.split={split}: it chooses among the files in data.dir, which is not given")
        files = _from_cache(folder)
    return _parsed(str(folder), origin, files, policy)


def _from_folder(folder: Path, origin: Origin, split: str | None) -> dict[str, _File]:
    split = split and split.lower().removeprefix("emnist-")
    return {name: _read(path) for name, path in _find(folder, origin, split).items()}


def _compare(origin: Origin, files: dict[str, _File]) -> None:
    """Leave a notice if this is not MNIST, which the user has not named."""
    others = [
        file.path.name for name, file in files.items() if hashlib.sha256(file.content).hexdigest() != SHA256[name]
    ]
    if others:
        origin.notice(f"not the well-known MNIST, but used as it is: {', '.join(others)}; data.dir confirms it")


def _find(folder: Path, origin: Origin, split: str | None) -> dict[str, Path]:
    """The four files by their public names: in the folder, else in the one place below that has all four."""
    found: list[tuple[str, dict[str, Path]]] = []
    for depth in range(_DEPTH + 1):
        places: dict[tuple[Path, str], dict[str, Path]] = {}
        for path in sorted(folder.glob("/".join(["*"] * (depth + 1)))):
            match = _NAMES.fullmatch(path.name)
            if match is None or not path.is_file():
                continue
            place = path.parent
            if _NAMES.fullmatch(place.name):  # each file unpacked into a folder of its own name
                place = place.parent
            # Sorted: a file comes before its own .gz.
            places.setdefault((place, (match["split"] or "").lower()), {}).setdefault(_public(match), path)
        found += [(which, files) for (_, which), files in places.items() if len(files) == len(SHA256)]
        if found:
            return _chosen(folder, origin, split, found)
        if depth == 0:
            here = places.get((folder, split or ""), {})
    raise origin.error(_missing(folder, split, here))


def _chosen(
    folder: Path, origin: Origin, split: str | None, found: Sequence[tuple[str, dict[str, Path]]]
) -> dict[str, Path]:
    splits = sorted({which for which, _ in found if which})
    if split is not None and split not in splits:
        there = f"choose one of {', '.join(splits)}" if splits else "its files have no splits; leave it out"
        raise ConfigError(f"data.split={split}: no such files in {folder}; {there}")
    plain = split is None and any(not which for which, _ in found)
    fitting = [(which, files) for which, files in found if which == (split or "")] if split or plain else found
    if len(fitting) == 1:
        return fitting[0][1]
    if len({which for which, _ in fitting}) > 1:
        raise origin.error(f"it holds several sets; choose one with data.split={'|'.join(splits)}")
    places = ", ".join(str(next(iter(files.values())).parent) for _, files in fitting)
    raise origin.error(f"several folders in it hold such files; name one: {places}")


def _missing(folder: Path, split: str | None, here: dict[str, Path]) -> str:
    name = next(name for name in SHA256 if name not in here)
    name = f"emnist-{split}-{name.replace('t10k', 'test')}" if split else name
    return (
        f"no {name} or {name}.gz in the folder {folder}; "
        "put the four MNIST files there, or use data=digits, which needs none"
    )


def _public(match: re.Match[str]) -> str:
    """The name of MNIST's own file that a file corresponds to."""
    part = "train" if match["part"].lower() == "train" else "t10k"
    return f"{part}-images-idx3-ubyte" if match["kind"].lower() == "images" else f"{part}-labels-idx1-ubyte"


def _read(path: Path) -> _File:
    try:
        content = path.read_bytes()
        return _File(path, gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({brief(error)}); {_ADVICE}") from error


def _cache() -> Path:
    if os.environ.get("ABLATE_CACHE"):
        return Path(os.environ["ABLATE_CACHE"]).expanduser() / "mnist"
    import pooch

    return Path(pooch.os_cache("ablate")) / "mnist"


def _from_cache(folder: Path) -> dict[str, _File]:
    """The four files from the cache; pooch gets missing or damaged ones from the mirrors in turn.

    It moves each into the cache atomically: another process sees the whole file or none.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    download, failures = _Download(folder), []
    for mirror in _mirrors():
        try:
            for name, sha256 in SHA256.items():
                pooch.retrieve(f"{mirror.rstrip('/')}/{name}.gz", sha256, name, folder, downloader=download)
            return {name: _File(folder / name, (folder / name).read_bytes()) for name in SHA256}
        except ValueError as error:  # of the download, or of pooch if the hash differs
            failures.append(f"{mirror}: {brief(_first_cause(error))}")
        except OSError as error:
            raise ConfigError(
                f"data=mnist: the cache {folder} cannot be used ({brief(error)}); name another folder by ABLATE_CACHE"
            ) from error
    raise ConfigError(
        f"data=mnist: the download failed ({'; '.join(failures)}); put the four files "
        "into a folder named by data.dir, or into $ABLATE_DATA/mnist, or use data=digits, which needs none"
    )


def _mirrors() -> tuple[str, ...]:
    own = os.environ.get("ABLATE_MNIST_URL")
    return (own,) if own else MIRRORS


class _Download:
    """pooch's download over HTTP, decompressed before pooch compares hashes.

    pooch's own `Decompress` runs after the comparison, and its result is compared with nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.announced = folder, False

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Write the file. Raises ValueError if the download fails, OSError if the disk does."""
        import pooch

        if not self.announced:
            _log.info("downloading MNIST (11 MB) to %s", self.folder)
            self.announced = True
        buffer = io.BytesIO()
        try:
            pooch.HTTPDownloader(chunk_size=1 << 16, timeout=TIMEOUT_SECONDS)(url, buffer, None)
            content = buffer.getvalue()
            # Some servers declare it as a content encoding, and the client has decompressed it already.
            content = gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{url} cannot be had") from error
        # pooch created this file with access for the user only; a new file follows the umask.
        Path(output_file).unlink()
        Path(output_file).write_bytes(content)


def _first_cause(error: BaseException) -> BaseException:
    """The error at the bottom: requests wraps "Connection refused" into three layers of long names."""
    return _first_cause(error.__context__) if error.__context__ else error


def _parsed(source: str, origin: Origin, files: dict[str, _File], policy: Policy) -> Raw:
    x_train, y_train = _images_and_labels(files, "train")
    x_test, y_test = _images_and_labels(files, "t10k")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ConfigError(
            f"{files['t10k-images-idx3-ubyte'].path}: its images are {_size(x_test)}, "
            f"those to train on {_size(x_train)}; {_ADVICE}"
        )
    labels = Labels(y_train, y_test, CLASSES)
    if policy != "auto" or max(y_train.max(), y_test.max()) >= CLASSES:
        names = [str(files[f"{part}-labels-idx1-ubyte"].path) for part in ("train", "t10k")]
        labels = read(origin, (y_train, y_test), (len(x_train), len(x_test)), policy, names)
    return Raw(
        source=source,
        x_train=x_train,
        y_train=labels.train,
        x_test=x_test,
        y_test=labels.test,
        classes=labels.classes,
        low=0.0,
        high=255.0,
        notices=tuple(origin.notices),
    )


def _size(images: NDArray[np.uint8]) -> str:
    return "x".join(map(str, images.shape[2:]))


def _images_and_labels(files: dict[str, _File], part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
    x, y = _idx(images, 3), _idx(labels, 1)
    if len(x) != len(y):
        raise ConfigError(f"{labels.path}: {len(y)} labels for {len(x)} images in {images.path.name}; {_ADVICE}")
    return x[:, np.newaxis], y.astype(np.int64)


def _idx(file: _File, dimensions: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    The format: two zero bytes, a type code, the number of dimensions, each size as a big-endian uint32,
    the values.
    """
    if fault := _idx_fault(file.content, dimensions):
        raise ConfigError(f"{file.path}: {fault}; {_ADVICE}")
    values = np.frombuffer(file.content, np.uint8, offset=4 + 4 * dimensions)
    return values.reshape(_idx_shape(file.content, dimensions))


def _idx_fault(content: bytes, dimensions: int) -> str | None:
    if len(content) < 4:
        return f"truncated, {len(content)} bytes are less than an IDX header"
    if content[:2] != b"\0\0":
        return f"not an IDX file, it begins with 0x{content[:2].hex()}, two zero bytes were expected"
    if content[2] != _UNSIGNED_BYTE:
        return f"IDX type code {content[2]}, {_UNSIGNED_BYTE} (unsigned byte) was expected"
    if content[3] != dimensions:
        return f"number of dimensions {content[3]}, {dimensions} was expected"
    there = len(content) - 4 - 4 * dimensions
    if there < 0:
        return f"truncated, {len(content)} bytes are less than an IDX header"
    shape = _idx_shape(content, dimensions)
    expected = math.prod(shape)
    if expected == 0:
        return f"empty, its shape is {shape}"
    if there < expected:
        return f"truncated, {there} values where its shape {shape} says {expected}"
    if there > expected:
        return f"{there - expected} trailing bytes after the {expected} values of its shape {shape}"
    return None


def _idx_shape(content: bytes, dimensions: int) -> tuple[int, ...]:
    return struct.unpack_from(f">{dimensions}I", content, 4)


@DATA_SETS.declare
class Mnist(DataSet):
    """`data=mnist`."""

    batch_size: ClassVar[int | None] = 300

    name: Literal["mnist"] = "mnist"
    dir: str | None = Field(
        None, description="mnist: folder of four IDX files, MNIST's or alike (null: ABLATE_DATA/mnist, else download)"
    )
    split: str | None = Field(None, description="mnist: which of EMNIST's sets, where data.dir holds several: letters")
    labels: Policy = Field("auto", description=POLICY_HELP)
    normalize: Normalize = Field("per_image", description=NORMALIZE_HELP)

    def read(self) -> Raw:
        return load(self.dir, self.split, self.labels)
