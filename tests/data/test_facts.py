"""What is measured of a data set, and `data.normalize=per_feature`, against NumPy's own functions."""

import numpy as np
import pytest

from ablate.problem.data.dataset import Dataset
from ablate.problem.data.loading import load

RNG = np.random.default_rng(5)
SCALES = 10.0 ** np.arange(-3, 4)


def samples(rows):
    """Seven columns of unlike scale and offset; the third is constant."""
    x = RNG.normal(size=(rows, 7)) * SCALES + SCALES[::-1]
    x[:, 2] = 0.1
    return x


def dataset(x, y, x_test, y_test, classes):
    return Dataset("mine", "mine", x, np.array(y), x_test, np.array(y_test), classes)


def test_facts_are_those_of_numpy() -> None:
    x, x_test = samples(5), samples(4)
    facts = dataset(x.reshape(5, 7, 1, 1), [0, 3, 3, 1, 3], x_test.reshape(4, 7, 1, 1), [1, 2, 3, 3], 5).facts
    varying = np.delete(x, 2, axis=1).std(axis=0)
    figures = [facts.low, facts.high, facts.mean, facts.deviation, facts.test_low, facts.test_high]
    expected = [x.min(), x.max(), x.mean(), x.std(), x_test.min(), x_test.max()]
    np.testing.assert_allclose(figures, expected, rtol=1e-12)
    np.testing.assert_allclose([facts.smallest_deviation, facts.largest_deviation], [varying.min(), varying.max()])
    assert facts.spread == pytest.approx(varying.max() / varying.min())
    assert (facts.rows, facts.features, facts.constant_columns) == (5, 7, 1)
    assert (facts.train_counts, facts.test_counts) == ((1, 1, 0, 3, 0), (0, 1, 1, 2, 0))
    assert (facts.majority, facts.majority_share, facts.test_majority_share) == (3, 0.6, 0.5)
    assert facts.untrained == (2,)


def test_facts_where_nothing_varies_and_where_values_are_extreme() -> None:
    same = dataset(np.full((3, 2), 0.1), [0, 1, 0], np.ones((1, 2)), [0], 2).facts
    assert (same.deviation, same.smallest_deviation, same.largest_deviation, same.spread) == (0, 0, 0, 1)
    assert same.constant_columns == 2
    for size in (1e200, 1e-200):
        wide = dataset(np.array([[0.0], [size]]), [0, 1], np.zeros((1, 1)), [0], 2).facts
        assert wide.deviation == wide.largest_deviation == pytest.approx(size / 2)


def test_targets_that_are_no_classes_have_no_shares() -> None:
    facts = dataset(np.eye(3), [0.5, 1.5, 2.5], np.eye(3), [0.5, 1.5, 2.5], 1).facts
    assert (facts.train_counts, facts.majority, facts.majority_share, facts.untrained) == ((), None, None, ())


@pytest.mark.parametrize("shape", [(7,), (1, 7, 1)])
def test_per_feature_is_by_the_rows_that_are_trained_on(tmp_path, shape) -> None:
    x, x_test, file = samples(6000), samples(9), tmp_path / "mine.npz"  # 6,000: more than one part
    x_test[:, 2] = 7.0
    np.savez(
        file,
        x_train=x.reshape(-1, *shape),
        y_train=np.arange(6000) % 2,
        x_test=x_test.reshape(-1, *shape),
        y_test=np.arange(9) % 2,
    )
    for limit in (6000, 4):
        data = load("npz", path=str(file), normalize="per_feature", train_limit=limit, dtype=np.dtype("float64"))
        others = [0, 1, 3, 4, 5, 6]
        used = x[:limit, others]
        for got, given in ((data.x_train, x[:limit]), (data.x_test, x_test)):
            got = got.reshape(-1, 7)
            expected = (given[:, others] - used.mean(axis=0)) / used.std(axis=0)
            np.testing.assert_allclose(got[:, others], expected, rtol=0, atol=1e-8)
            assert not got[:, 2].any()  # constant in training: 0 everywhere
