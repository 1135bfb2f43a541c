"""Labels as people write them: what they are taken as, and what is said of it."""

import re

import numpy as np
import pytest
from conftest import run_in_process

from ablate.commands import explain
from ablate.errors import ConfigError
from ablate.problem.data.loading import load

Y = np.array([2, 0, 1, 1, 2, 0, 0, 1])
TEST = np.array([1, 2, 0])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.npz"


def loaded(file, y_train, y_test, **keys):
    x = np.random.default_rng(0).normal(size=(len(Y) + len(TEST), 4))
    arrays = {"x_train": x[: len(Y)], "y_train": y_train, "x_test": x[len(Y) :], "y_test": y_test}
    np.savez(file, **arrays)
    return load("npz", path=str(file), dtype=np.dtype("float64"), **keys)


def refused(file, y_train, y_test, **keys):
    with pytest.raises(ConfigError) as caught:
        loaded(file, y_train, y_test, **keys)
    assert str(caught.value).startswith(f"data.path={file}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(table):
    return lambda y: np.array(table)[y]


TAKEN = {  # how classes 0, 1, 2 may be written, and what is said of it
    "from 1": (lambda y: y + 1, "y_train has the labels 1..3: taken as the classes 0..2 in this order"),
    "gaps": (written([0, 2, 7]), "labels 0, 2, 7: .*data.labels=as_is takes them as the numbers of 8 outputs"),
    "below 0": (lambda y: y - 7.0, "labels -7..-5: "),
    "large": (written([5, 2**40, 2**50]), "labels 5, 1099511627776, 1125899906842624: "),
    "text": (written(["ant", "bee", "cow"]), "labels ant, bee, cow: "),
    "bytes": (written([b"ant", b"bee", b"cow"]), "labels ant, bee, cow: "),
    "a column": (lambda y: y[:, np.newaxis], r"shape \(8, 1\), taken as \(8,\), which is y_train.ravel()"),
    "a row": (lambda y: y[np.newaxis], r"shape \(1, 8\), taken as \(8,\), which is y_train.ravel()"),
    "one-hot": (lambda y: np.eye(3)[y], r"shape \(8, 3\) .* which is y_train.argmax\(axis=1\)"),
    "one-hot bools": (lambda y: np.eye(3, dtype=bool)[y], "one-hot"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_labels_are_taken_with_one_notice(file, kind):
    write, said = TAKEN[kind]
    data = loaded(file, write(Y), write(TEST))
    np.testing.assert_array_equal(data.y_train, Y)
    np.testing.assert_array_equal(data.y_test, TEST)
    assert data.classes == 3
    (notice,) = data.notices
    assert notice.startswith(f"data.path={file}: ")
    assert re.search(said, notice)


def test_what_is_made_of_the_test_labels_only_is_said_beside_the_rest(file):
    data = loaded(file, Y[:, np.newaxis], np.eye(3)[TEST])
    assert [line.split(": ")[1].split(" has")[0] for line in data.notices] == ["y_train", "y_test"]


def test_minus_one_and_one_and_bools_are_two_classes(file):
    two = Y > 0
    signs = loaded(file, np.where(two, 1, -1), np.array([1, -1, 1]))
    assert (signs.y_train.tolist(), signs.y_test.tolist(), signs.classes) == (two.astype(int).tolist(), [1, 0, 1], 2)
    assert "labels -1, 1: " in signs.notices[0]
    assert loaded(file, two, np.array([True, False, True])).notices == ()


def test_a_label_below_0_beside_0_is_asked_about(file):
    assert "y_train[1] is -1, beside labels from 0 on (-1..1): leave out" in refused(file, Y - 1, TEST - 1)
    data = loaded(file, Y - 1, TEST - 1, labels="remap")
    assert (data.y_train.tolist(), data.notices) == (Y.tolist(), ())


def test_what_is_confirmed_is_not_said(file):
    assert loaded(file, Y + 1, TEST + 1, labels="remap").notices == ()
    as_is = loaded(file, Y + 1, TEST + 1, labels="as_is")
    assert (as_is.y_train.tolist(), as_is.classes, as_is.notices) == ((Y + 1).tolist(), 4, ())


@pytest.mark.parametrize(("y", "said"), [(Y - 1, "y_train[1] is -1"), (Y.astype(str), "dtype <U"), (Y << 20, "65536")])
def test_the_numbers_of_outputs_are_whole_and_from_0(file, y, said):
    assert said in refused(file, y, y[:3], labels="as_is")


def test_many_labels_for_the_rows_are_asked_about_or_said(tmp_path):
    rng = np.random.default_rng(1)
    for rows, said in (
        (240, "taken as the classes 0..39"),
        (60, "hardly classes; data.task=regression if they are amounts; "),
        (900, ""),
    ):
        file, ages = tmp_path / f"{rows}.npz", np.append(np.arange(20, 60), rng.integers(20, 60, rows - 40))
        np.savez(file, x_train=ages[:, np.newaxis], y_train=ages, x_test=ages[:9, np.newaxis], y_test=ages[:9])
        try:
            said_of_it = " ".join(load("npz", path=str(file), dtype=np.dtype("float32")).notices)
        except ConfigError as error:
            said_of_it = str(error)
        assert said in said_of_it
        assert ("data.task=regression if they are amounts" in said_of_it) == (rows < 900)
        assert (f"40 different labels for {rows} rows, 20..59" in said_of_it) == (rows < 900)
        confirmed = load("npz", path=str(file), labels="remap", dtype=np.dtype("float32"))
        assert (confirmed.classes, confirmed.notices) == (40, ())


@pytest.mark.parametrize(
    ("y_train", "y_test", "said"),
    [
        (
            np.eye(3)[Y] + np.eye(3)[0],
            TEST,
            "y_train.argmax(axis=1) if a row has a number for each class, data.task=regression if",
        ),
        (
            np.maximum(np.eye(3)[Y], np.eye(3)[1]),
            TEST,
            "2 ones in row 0; one class each was expected, or data.task=multilabel",
        ),
        (
            Y + 0.5,
            TEST,
            "regression if they are amounts; a class is a whole number: number the classes 0, 1, 2, ...",
        ),
        (Y, TEST.astype(str), "y_train is of dtype int64, y_test of <U"),
        (Y.astype(object), TEST, "y_train holds Python objects, which need allow_pickle; y_train = y_train.astype"),
        (Y * 0, TEST * 0, "divided by 255, all are 0"),
        (
            Y + np.uint64(2**63 + 1),
            TEST,
            "too large for a class to be told from the next; ",
        ),
    ],
)
def test_other_labels_are_refused_with_what_to_write(file, y_train, y_test, said):
    assert said in refused(file, y_train, y_test)


def test_a_notice_is_in_the_output_the_log_the_records_and_the_report(file, tmp_path):
    loaded(file, Y + 1, TEST + 1)
    words = ["data=npz", f"data.path={file}", "model=softmax_regression", "epochs=1", "tracking=none", "workers=1"]
    done = run_in_process(tmp_path, "-m", *words, "lr=0.1,1")
    line = f"data.path={file}: y_train has the labels 1..3: taken as the classes 0..2 in this order"
    assert done.code == 0
    assert done.err.count(line) == 1
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "ablate.log").read_text().count(line) == 1
    assert (folder / "report.md").read_text().count(line) == 1
    for trial in ("0", "1"):
        assert explain.read(folder / trial).notices[0].startswith(line)
