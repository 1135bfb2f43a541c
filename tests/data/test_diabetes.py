"""The embedded regression: rows as published, in the documented order, scaled by the training set alone."""

import numpy as np
import pytest

from ablate.errors import ConfigError
from ablate.problem.data.loading import load


def test_rows_are_those_of_the_published_table():
    data = load("diabetes", normalize="none", normalize_targets=False, dtype=np.dtype("float64"))
    order = np.random.default_rng(0).permutation(442)
    x, y = (np.empty((442, size)) for size in (10, 1))
    x[order], y[order] = np.vstack([data.x_train, data.x_test]), np.vstack([data.y_train, data.y_test])
    # The first patients of the table of Efron et al., and what they say of all.
    np.testing.assert_array_equal(x[0], [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87])
    assert y[:4, 0].tolist() == [151, 75, 141, 206]
    assert (y.min(), y.max(), round(float(y.mean()), 3)) == (25, 346, 152.133)
    assert (len(data.x_train), len(data.x_test), data.classes, data.task.name) == (342, 100, 1, "regression")


def test_targets_are_standardised_by_the_training_set_and_outputs_brought_back():
    plain = load("diabetes", normalize_targets=False, dtype=np.dtype("float64"))
    data = load("diabetes", dtype=np.dtype("float64"))
    mean, deviation = plain.y_train.mean(), plain.y_train.std()
    np.testing.assert_allclose(data.y_test, (plain.y_test - mean) / deviation, rtol=1e-12)
    np.testing.assert_allclose(data.in_file_units(data.y_test), plain.y_test, rtol=1e-12)


def test_it_is_no_classification():
    with pytest.raises(ConfigError, match=r"^data.task=multilabel: data=diabetes has numbers"):
        load("diabetes", task="multilabel", dtype=np.dtype("float32"))
