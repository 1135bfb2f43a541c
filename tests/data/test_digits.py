"""The embedded digits, and what `load` does to every data set: limits, normalisation, dtype, digest."""

import subprocess
import sys

import numpy as np
import pytest

from ablate.errors import ConfigError
from ablate.problem.data.loading import DATA_SETS, load


def digits(normalize="none", dtype="float64", **limits):
    return load("digits", normalize=normalize, dtype=np.dtype(dtype), **limits)


def refused(**arguments):
    """The one line that `load` refuses these arguments with."""
    with pytest.raises(ConfigError) as caught:
        load(**({"name": "digits", "normalize": "none", "dtype": np.dtype("float32")} | arguments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_are_those_of_scikit_learn_in_the_order_of_permutation_0():
    from sklearn.datasets import load_digits  # here: it takes a second of every process that collects the tests

    data, oracle = digits(), load_digits()
    order = np.random.default_rng(0).permutation(1797)
    images = oracle.images[order].reshape(1797, 1, 8, 8)
    np.testing.assert_array_equal(data.x_train, images[:1497])
    np.testing.assert_array_equal(data.x_test, images[1497:])
    np.testing.assert_array_equal(data.y_train, oracle.target[order][:1497])
    np.testing.assert_array_equal(data.y_test, oracle.target[order][1497:])


def test_the_dataset_describes_itself():
    data = digits()
    assert (data.name, data.source, data.classes) == ("digits", "scikit-learn load_digits", 10)
    assert data.sample_shape == (1, 8, 8)
    assert DATA_SETS.get("digits").batch_size == 32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("normalize", ["none", "unit", "per_image"])
def test_arrays_are_contiguous_and_of_the_dtype_asked_for(normalize, dtype):
    data = digits(normalize, dtype, train_limit=10)
    for x in (data.x_train, data.x_test):
        assert x.dtype == dtype
        assert x.flags.c_contiguous
    for y in (data.y_train, data.y_test):
        assert y.dtype == np.int64
        assert y.flags.c_contiguous


def test_per_image_gives_each_image_its_own_mean_and_deviation():
    plain, data = digits(), digits("per_image")
    for images, normalized in ((plain.x_train, data.x_train), (plain.x_test, data.x_test)):
        oracle = np.stack([(image - np.mean(image)) / np.std(image) for image in images])
        np.testing.assert_allclose(normalized, oracle, rtol=0, atol=1e-12)


def test_normalisation_is_computed_in_float64_and_cast_last():
    expected = digits("per_image").x_train.astype(np.float32)
    np.testing.assert_array_equal(digits("per_image", "float32").x_train, expected)


def test_unit_divides_by_the_largest_pixel_value():
    np.testing.assert_array_equal(digits("unit").x_train, digits().x_train / 16)


def test_limits_keep_the_first_rows():
    whole, part = digits("per_image"), digits("per_image", train_limit=7, test_limit=300)
    np.testing.assert_array_equal(part.x_train, whole.x_train[:7])
    np.testing.assert_array_equal(part.y_train, whole.y_train[:7])
    np.testing.assert_array_equal(part.x_test, whole.x_test)
    one = digits(test_limit=1)
    assert len(one.x_test) == len(one.y_test) == 1


@pytest.mark.parametrize(
    ("limit", "rows"),
    [
        ({"train_limit": 1498}, 1497),
        ({"train_limit": 0}, 1497),
        ({"test_limit": 301}, 300),
        ({"test_limit": -1}, 300),
    ],
)
def test_a_limit_out_of_range_is_refused(limit, rows):
    message = refused(**limit)
    ((key, value),) = limit.items()
    assert f"data.{key}={value}" in message
    assert f" {rows} " in message


def test_an_unknown_name_or_normalisation_is_refused():
    assert "data=cifar" in refused(name="cifar")
    assert "data.normalize=whiten" in refused(normalize="whiten")
    with pytest.raises(ConfigError, match="data=cifar"):
        DATA_SETS.get("cifar")


def test_the_digest_is_the_same_for_the_same_arrays_only():
    first = digits(test_limit=5).digest
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert digits(test_limit=5).digest == first
    others = {digits(test_limit=6).digest, digits("unit", test_limit=5).digest, digits(train_limit=9).digest}
    assert len(others | {first, digits(dtype="float32", test_limit=5).digest}) == 5


def test_importing_the_package_imports_no_slow_library():
    script = (
        "import sys, ablate.problem.data.loading;"
        "print([name for name in ('sklearn', 'scipy', 'pooch', 'requests', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
