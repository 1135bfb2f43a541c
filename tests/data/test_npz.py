"""One's own `.npz` file: what is accepted, and how the rest is refused."""

import io
import re
import warnings
import zipfile

import numpy as np
import pytest

from ablate.errors import ConfigError
from ablate.problem.data.loading import DATA_SETS, load

NAN, INFINITE = float("nan"), float("inf")


def arrays(**changes):
    """Six samples to train and three to test, of three classes, with some arrays changed."""
    rng = np.random.default_rng(1)
    good = {
        "x_train": rng.normal(size=(6, 5)),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.normal(size=(3, 5)),
        "y_test": np.array([2, 1, 0]),
    }
    return good | changes


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.npz"


def loaded(file, normalize="none", dtype="float64", **changes):
    np.savez(file, **arrays(**changes))
    return load("npz", path=str(file), normalize=normalize, dtype=np.dtype(dtype))


def refused(file, **arguments):
    """The one line that the file as it stands is refused with; it names the key and the file."""
    with pytest.raises(ConfigError) as caught:
        load("npz", path=str(file), **({"normalize": "none", "dtype": np.dtype("float32")} | arguments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_arrays(file, **changes):
    np.savez(file, **arrays(**changes))
    message = refused(file)
    assert message.startswith(f"data.path={file}: ")
    return message


def test_vectors_are_given_as_they_are(file):
    data, expected = loaded(file), arrays()
    for name in expected:
        np.testing.assert_array_equal(getattr(data, name), expected[name])
    assert (data.name, data.source, data.classes, data.sample_shape) == ("npz", str(file), 3, (5,))
    assert DATA_SETS.get("npz").batch_size == 32


def test_images_get_a_channel_if_they_have_none(file):
    flat, deep = np.arange(6 * 12.0), np.arange(3 * 12.0)
    data = loaded(file, x_train=flat.reshape(6, 3, 4), x_test=deep.reshape(3, 3, 4))
    assert (data.x_train.shape, data.x_test.shape) == ((6, 1, 3, 4), (3, 1, 3, 4))
    np.testing.assert_array_equal(data.x_train.ravel(), flat)
    data = loaded(file, x_train=flat.reshape(6, 2, 3, 2), x_test=deep.reshape(3, 2, 3, 2))
    assert data.sample_shape == (2, 3, 2)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", ">i4", "uint64", "float16", ">f8", "longdouble"])
def test_every_real_dtype_is_accepted(file, dtype):
    x = np.eye(6, 5).astype(dtype)
    data = loaded(file, dtype="float32", x_train=x, x_test=x[:3])
    assert data.x_train.dtype == np.float32
    np.testing.assert_array_equal(data.x_train, np.eye(6, 5))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint64", "float32", ">i2"])
def test_labels_may_be_of_any_dtype_that_holds_whole_numbers(file, dtype):
    data = loaded(file, y_train=np.array([0, 1, 1, 0, 1, 0]).astype(dtype), y_test=np.array([1, 0, 1]).astype(dtype))
    assert data.y_train.dtype == np.int64
    assert data.y_train.tolist() == [0, 1, 1, 0, 1, 0]
    assert data.classes == 2


def test_classes_are_those_of_the_whole_training_set(file):
    np.savez(file, **arrays())
    limited = load("npz", path=str(file), train_limit=2, normalize="none", dtype=np.dtype("float32"))
    assert limited.classes == 3


def test_the_digest_tells_shapes_apart(file):
    x = np.arange(6 * 12.0)
    shapes = [(6, 12), (6, 3, 4), (6, 4, 3)]
    digests = {loaded(file, x_train=x.reshape(shape), x_test=x.reshape(shape)[:3]).digest for shape in shapes}
    assert len(digests) == 3


def test_unit_takes_its_range_from_the_training_set(file):
    train, test = np.linspace(-3, 5, 30).reshape(6, 5), np.full((3, 5), 9.0)
    data = loaded(file, "unit", x_train=train, x_test=test)
    np.testing.assert_allclose(data.x_train, (train + 3) / 8, atol=1e-15)
    np.testing.assert_allclose(data.x_test, 12 / 8)


def test_per_image_over_several_chunks_and_channels(file):
    x = np.random.default_rng(2).normal(3, 7, size=(700, 2, 20, 20))
    data = loaded(file, "per_image", x_train=x, y_train=np.arange(700) % 3, x_test=x[:3])
    oracle = np.stack([(image - np.mean(image)) / np.std(image) for image in x])
    np.testing.assert_allclose(data.x_train, oracle, rtol=0, atol=1e-12)


def test_constant_samples_and_extreme_values_are_normalised_without_a_warning(file):
    shape = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    rows = [np.full(5, 0.1), np.full(5, -7.3), shape, shape * 1e200, shape * 1e-200, shape]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = loaded(file, "per_image", x_train=np.array(rows)).x_train
        assert not loaded(file, "unit", x_train=np.full((6, 5), 0.1)).x_train.any()
    assert not x[:2].any()
    np.testing.assert_allclose(x[2:], np.tile((shape - 3) / np.sqrt(2), (4, 1)), atol=1e-12)


def test_values_too_large_for_the_dtype_are_refused(file):
    np.savez(file, **arrays(x_test=np.full((3, 5), 1e39)))
    message = refused(file)
    assert "data.normalize=none" in message
    assert str(file) in message
    assert "float32" in message
    assert loaded(file, x_test=np.full((3, 5), 1e39)).x_test.max() == 1e39


@pytest.mark.parametrize("path", [None, ""])
def test_no_path_is_refused(path):
    with pytest.raises(ConfigError, match=r"data\.path=.*x_train, y_train, x_test, y_test"):
        load("npz", path=path, normalize="none", dtype=np.dtype("float32"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert f"data.path={tmp_path / 'none.npz'}: " in refused(tmp_path / "none.npz")
    assert f"data.path={tmp_path}: " in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short", b"\x80\x04]\x94."])
def test_a_file_of_another_kind_is_refused(file, content):
    file.write_bytes(content)
    message = refused(file)
    assert "numpy.savez" in message
    assert ("data=csv" in message) == (content[:1] in (b"h", b"\x80"))


def test_a_single_array_is_refused(file):
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "a single array" in refused(file)


def test_a_damaged_archive_is_refused(file):
    np.savez(file, **arrays())
    content = bytearray(file.read_bytes())
    values = content.find(arrays()["x_test"].tobytes())
    content[values] ^= 255
    file.write_bytes(content)
    assert "x_test cannot be read" in refused(file)


def test_a_member_that_is_no_array_is_refused(file):
    stream = io.BytesIO()
    np.savez(stream, **arrays())
    with zipfile.ZipFile(stream) as good, zipfile.ZipFile(file, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"text" if name == "y_train.npy" else good.read(name))
    assert "y_train" in refused(file)


def test_a_missing_array_is_told_with_those_that_are_there(file):
    some = arrays()
    del some["y_test"]
    np.savez(file, **some)
    message = refused(file)
    assert "y_test" in message
    assert "x_train, y_train, x_test" in message


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.array([{}, None, 1], dtype=object), "allow_pickle"),
        (np.zeros((3, 5), complex), "complex128"),
        (np.array(1.0), r"shape \(\)"),
        (np.zeros((3, 1, 1, 1, 5)), r"shape \(3, 1, 1, 1, 5\)"),
    ],
)
def test_arrays_of_another_kind_are_refused(file, name, array, complaint):
    message = refused_arrays(file, **{name: array})
    assert re.search(complaint, message)
    assert f" {name} " in message


@pytest.mark.parametrize("name", ["x_train", "x_test"])
def test_samples_of_text_are_refused(file, name):
    assert f" {name} is of dtype <U1" in refused_arrays(file, **{name: np.full((3, 5), "a")})


@pytest.mark.parametrize("name", ["x_train", "x_test"])
@pytest.mark.parametrize("shape", [(0, 5), (6, 0), (6, 3, 0)])
def test_empty_samples_are_refused(file, name, shape):
    message = refused_arrays(file, **{name: np.zeros(shape)})
    assert name in message
    assert "empty" in message


def test_one_vector_of_samples_is_refused(file):
    assert "x_train has shape (6,)" in refused_arrays(file, x_train=np.zeros(6))


@pytest.mark.parametrize("name", ["x_train", "x_test"])
def test_pixels_that_are_not_finite_are_counted_and_located(file, name):
    x = arrays()[name]
    x[1, 3], x[2, 0], x[2, 4] = NAN, INFINITE, -INFINITE
    message = refused_arrays(file, **{name: x})
    assert f"{name} has 3 NaN or infinite" in message
    assert "[1, 3]" in message


def test_as_many_labels_as_samples_are_expected(file):
    assert "y_train has 5 labels for 6 samples" in refused_arrays(file, y_train=np.array([0, 1, 2, 0, 1]))
    assert "y_test has 4 labels for 3 samples" in refused_arrays(file, y_test=np.array([0, 1, 2, 0]))


@pytest.mark.parametrize("name", ["y_train", "y_test"])
@pytest.mark.parametrize("label", [0.5, NAN, INFINITE, 1e300])
def test_labels_that_are_no_class_are_refused(file, name, label):
    y = arrays()[name].astype(type(label))
    y[1] = label
    message = refused_arrays(file, **{name: y})
    assert f"{name}[1] is {label}" in message


def test_a_test_label_never_trained_is_refused(file):
    message = refused_arrays(file, y_test=np.array([0, 3, 1]))
    assert "y_test has the label 3, y_train only 0..2" in message
    assert "leave out 1 of the 3 test rows" in message
    assert "np.isin(y_test, y_train)" in message


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 1), (3, 1, 5, 1)])
def test_test_samples_of_another_shape_are_refused(file, shape):
    message = refused_arrays(file, x_test=np.zeros(shape))
    assert "x_test" in message
    assert "x_train of (5,)" in message


@pytest.mark.parametrize("label", [0, 1])
def test_a_single_class_is_refused(file, label):
    message = refused_arrays(file, y_train=np.full(6, label), y_test=np.full(3, label))
    assert f"y_train holds only the label {label}" in message


# Names, axes and shapes


def said(file, stored, **keys):
    """What becomes of arrays under these names."""
    np.savez(file, **stored)
    data = load("npz", path=str(file), dtype=np.dtype("float64"), **keys)
    return data, " / ".join(data.notices)


@pytest.mark.parametrize(
    "names",
    [
        "X_train Y_train X_test Y_test",
        "train_x train_y val_x val_y",
        "testLabels trainImages trainLabels testImages",
        "train train_labels test test_labels",
        "training_data tr_targets dev_data te_targets",
        "train_set_x_orig train_set_y_orig test_set_x_orig test_set_y_orig",
    ],
)
def test_arrays_go_by_other_names(file, names):
    good, names = arrays(), names.split()
    roles = list(good) if names[0] != "testLabels" else ["y_test", "x_train", "y_train", "x_test"]
    data, notices = said(file, {name: good[role] for name, role in zip(names, roles, strict=True)})
    for role, array in good.items():
        np.testing.assert_array_equal(getattr(data, role), array)
    assert "are taken as x_train, y_train, x_test, y_test" in notices
    assert said(file, good | {"x_val": np.zeros(2), "X_train": np.zeros(3)})[1] == ""


@pytest.mark.parametrize(
    "names", [("x", "y"), ("X", "Y"), ("data", "target"), ("images", "labels"), ("x_train", "y_train")]
)
def test_without_a_test_set_rows_are_split_off_in_a_fixed_order(file, names):
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    data, notices = said(file, dict(zip(names, (x, y), strict=True)))
    order = np.random.default_rng(0).permutation(10)
    np.testing.assert_array_equal(data.x_train, x[order[:8]])
    np.testing.assert_array_equal(data.y_test, y[order[8:]])
    assert "the last 2 of the 10 rows" in notices
    more, notices = said(file, dict(zip(names, (x, y[np.newaxis]), strict=True)), test_share=0.4)
    np.testing.assert_array_equal(more.x_test, x[order[6:]])
    np.testing.assert_array_equal(more.y_test, y[order[6:]])
    assert "test set" not in notices
    # A class with a single row, which happens to be tested on, is a class all the same.
    rare = y.copy()
    rare[order[9]] = 2
    data, notices = said(file, {"x": x, "y": rare}, test_share=0.2)
    assert (data.classes, data.y_test[-1]) == (3, 2)
    assert "no training row in use is of class 2" in notices


def test_a_share_to_test_on_must_leave_rows_and_be_wanted(file):
    np.savez(file, x=np.eye(3), y=np.array([0, 1, 1]))
    assert "0 of its 3 rows" in refused(file, test_share=0.1)
    np.savez(file, **arrays())
    assert refused(file, test_share=0.1).startswith("data.test_share=0.1: ")


@pytest.mark.parametrize(
    ("shape", "channels", "notice"),
    [
        ((8, 8, 1), "last", "taken as (N, H, W, C), images of 8x8 with 1 channel; data.channels=last confirms it"),
        ((6, 5, 3), "last", "images of 6x5 with 3 channels"),
        ((5, 5, 2), "last", "images of 5x5 with 2 channels"),
        ((1, 8, 8), "first", ""),
        ((3, 5, 8), "first", ""),
        ((2, 5, 5), "first", ""),
        ((3, 3, 3), "first", "taken as (N, C, H, W), images of 3x3 with 3 channels; data.channels=first confirms it"),
        ((2, 3, 5), "first", "images of 3x5 with 2 channels"),
    ],
)
def test_the_axis_of_channels_is_told_by_the_shape(file, shape, channels, notice):
    x = np.random.default_rng(3).normal(size=(9, *shape))
    stored = arrays(x_train=x[:6], x_test=x[6:])
    expected = {"first": x, "last": x.transpose(0, 3, 1, 2)}
    data, notices = said(file, stored)
    np.testing.assert_array_equal(np.concatenate([data.x_train, data.x_test]), expected[channels])
    assert data.x_train.flags.c_contiguous
    assert notice in notices
    assert bool(notice) == bool(notices)
    for asked in ("first", "last"):
        data, notices = said(file, stored, channels=asked)
        np.testing.assert_array_equal(data.x_test, expected[asked][6:])
        assert not notices


def test_a_row_is_an_image_if_the_user_says_so(file):
    x = np.random.default_rng(3).normal(size=(9, 24))
    stored = arrays(x_train=x[:6], x_test=x[6:])
    for shape, expected in (([4, 6], (1, 4, 6)), ([3, 2, 4], (3, 2, 4)), ([2, 4, 3], (3, 2, 4)), ([24], (24,))):
        assert said(file, stored, shape=shape)[0].sample_shape == expected
    np.testing.assert_array_equal(said(file, stored, shape=[4, 6])[0].x_test, x[6:].reshape(3, 1, 4, 6))
    np.savez(file, **stored)
    assert refused(file, shape=[5, 5]) == "data.shape=[5,5]: 25 values, but a sample of x_train has 24"
    assert refused(file, shape=[1, 1, 4, 6]).startswith("data.shape=[1,1,4,6]: expected [H,W]")
    assert refused(file, channels="last").startswith("data.channels=last: x_train has shape (6, 24)")


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"x_train": np.zeros((5, 6)), "x_test": np.zeros((5, 3))}, "x_train has shape (5, 6): x_train.T if"),
        ({"x_train": np.zeros((4, 4, 6))}, "np.moveaxis(x_train, -1, 0) if"),
        ({"x_train": np.zeros(6)}, "x_train.reshape(-1, 1) if a sample is one number"),
        ({"x_train": np.full((6, 5), "1.5")}, "x_train.astype(float) where they are numbers"),
    ],
)
def test_samples_of_another_form_are_refused_with_what_to_write(file, changes, advice):
    assert advice in refused_arrays(file, **changes)


# Training against test set


def test_unlike_scales_are_said_and_outliers_are_none(file):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 5)), np.arange(60) % 3

    def notices(train, test, **keys):
        return said(file, {"x_train": train, "y_train": y, "x_test": test, "y_test": y}, **keys)[1]

    x_test = x[::-1]
    outlier = x_test.copy()
    outlier[0, 0] = 3000.0
    assert notices(x, x_test) == notices(x, outlier) == notices(outlier, x) == notices(x, x_test * 3) == ""
    mostly_small, mostly_large = (np.where(rng.random((60, 5)) < share, 0.01, 10) for share in (0.7, 0.3))
    assert notices(mostly_small, mostly_large) == ""
    background = np.where(rng.random((60, 5)) < 0.4, 0, 7.0)
    sparse = np.where(rng.random((60, 5)) < 0.6, 0, background)
    sparse[0, 0] = 100.0
    assert notices(background, sparse) == ""
    below, far_below = -np.abs(x), -9 * np.abs(x_test)
    below[0, 0] = far_below[0, 0] = 0.5
    unlike = [
        (x, x_test * 9),
        (x * 9, x_test),
        (x, x_test + 90),
        (x, x_test * 0),
        (below, far_below),
    ]
    for train, test in unlike:
        line = notices(train, test)
        assert f"train on lie between {train.min():.4g} and {train.max():.4g}" in line
        assert f"test on between {test.min():.4g} and {test.max():.4g}" in line
    assert notices(x, x_test * 9, normalize="per_image") == ""


def test_classes_that_are_not_trained_on_are_said(file):
    stored = arrays(y_train=np.array([0, 0, 1, 1, 2, 2]), y_test=np.array([2, 2, 1]))
    assert said(file, stored, train_limit=5)[1] == ""
    assert "no training row in use is of class 2, but 2 of the 3 test rows are" in said(file, stored, train_limit=4)[1]
    assert "all 2 training rows in use are of class 0" in said(file, stored, train_limit=2)[1]
    gap = arrays(y_train=np.array([0, 0, 3, 3, 0, 3]), y_test=np.array([1, 2, 0]))
    assert "is of classes 1, 2, but 2 of" in said(file, gap, labels="as_is")[1]
