"""The 1,797 handwritten 8x8 digits that come with scikit-learn: no file, no network."""

from __future__ import annotations

import numpy as np

from ablate.data import Raw

_TRAIN_ROWS = 1497


def load() -> Raw:
    """1,497 images to train and 300 to test, `(N, 1, 8, 8)` with pixels 0..16, ten classes."""
    from sklearn.datasets import load_digits  # imports scipy: too slow for module level

    digits = load_digits()
    # In the file's own order the last 300 rows are harder than the rest.
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = digits.images[order, np.newaxis]
    y = digits.target[order].astype(np.int64)
    return Raw(
        source="scikit-learn load_digits",
        x_train=x[:_TRAIN_ROWS],
        y_train=y[:_TRAIN_ROWS],
        x_test=x[_TRAIN_ROWS:],
        y_test=y[_TRAIN_ROWS:],
        classes=10,
        low=0.0,
        high=16.0,
    )
