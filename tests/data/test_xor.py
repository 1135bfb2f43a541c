"""The four patterns of exclusive or."""

import warnings

import numpy as np

from ablate.problem.data.loading import DATA_SETS, load


def xor(normalize="none"):
    return load("xor", normalize=normalize, dtype=np.dtype("float32"))


def test_the_label_is_the_exclusive_or_of_the_two_inputs():
    data = xor()
    assert data.x_train.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert data.y_train.tolist() == [0, 1, 1, 0]
    assert data.x_train.dtype == np.float32
    assert (data.name, data.classes, data.sample_shape) == ("xor", 2, (2,))


def test_it_is_tested_on_what_it_was_trained_on():
    data = xor()
    np.testing.assert_array_equal(data.x_test, data.x_train)
    np.testing.assert_array_equal(data.y_test, data.y_train)


def test_its_batch_is_the_whole_set():
    assert DATA_SETS.get("xor").batch_size is None


def test_constant_samples_become_zeros_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xor("per_image").x_train.tolist() == [[0, 0], [-1, 1], [1, -1], [0, 0]]


def test_unit_leaves_it_as_it_is():
    assert xor("unit").x_train.tolist() == xor().x_train.tolist()
