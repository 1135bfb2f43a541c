"""Tables as text: what is taken for header, label and samples, and how the rest is refused."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
from helpers import prepared

from ablate.errors import ConfigError
from ablate.problem.data.loading import load

X = np.round(np.random.default_rng(0).normal(size=(40, 3)), 2)
Y = np.arange(40) % 2
ORDER = np.random.default_rng(0).permutation(40)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.csv"


def written(header="a,b,c,label", rows=None, separator=",", label=None):
    """A table with the label last."""
    labels = Y if label is None else np.array(label)[Y]
    rows = rows or [[*map(str, x), str(y)] for x, y in zip(X, labels, strict=True)]
    lines = [*([header.replace(",", separator)] if header else []), *(separator.join(row) for row in rows)]
    return "\n".join(lines) + "\n"


def loaded(file, content, **keys):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load("csv", path=str(file), dtype=np.dtype("float64"), **keys)


def refused(file, content, **keys):
    with pytest.raises(ConfigError) as caught:
        loaded(file, content, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_mine(data, x=X):
    np.testing.assert_array_equal(data.x_train, x[ORDER[:32]])
    np.testing.assert_array_equal(data.x_test, x[ORDER[32:]])
    assert data.y_train.tolist() == Y[ORDER[:32]].tolist()
    assert data.y_test.tolist() == Y[ORDER[32:]].tolist()


KNOWN = {"label": "label", "test_share": 0.2}  # with these, nothing is left to be said


@pytest.mark.parametrize(
    "content",
    [
        written(),
        written().replace("\n", "\r\n"),
        written().replace("\n", "\r"),
        b"\xef\xbb\xbf" + written().encode(),
        gzip.compress(written().encode(), mtime=0),
        *(written(separator=separator) for separator in ";\t| "),
        written('"a","b","c","label"'),
        written().replace(",", ",  "),
        written("a,b,c,label,", [[*map(str, x), str(y), ""] for x, y in zip(X, Y, strict=True)]),
        written("label,0,1,2", [[str(y), *map(str, x)] for x, y in zip(X, Y, strict=True)]),
    ],
    ids=[
        "plain",
        "CRLF",
        "CR",
        "BOM",
        "gz",
        "semicolons",
        "tabs",
        "bars",
        "spaces",
        "quotes",
        "padded",
        "trailing comma",
        "label first",
    ],
)
def test_a_table_is_read_however_it_is_written(file, content):
    data = loaded(file, content, **KNOWN)
    assert_mine(data)
    assert (data.name, data.source, data.classes, data.notices) == ("csv", str(file), 2, ())


@pytest.mark.parametrize("keys", [{"label": "last"}, {"label": 3}, {"label": "3"}])
def test_without_a_header_columns_go_by_their_place(file, keys):
    assert_mine(loaded(file, written(None), **keys))
    assert_mine(loaded(file, written(None).replace("\n", ",\n"), **keys))
    text = loaded(file, written(None, label=["yes", "no"]), **keys)
    assert text.y_train.tolist() == (1 - Y[ORDER[:32]]).tolist()
    assert "labels no, yes: taken as the classes 0..1" in text.notices[-1]


def test_a_count_of_the_columns_is_a_header_and_said_to_be(file):
    data = loaded(file, written("0,1,2,3"), label="last")
    assert_mine(data)
    assert "data.header=true confirms it" in data.notices[0]
    assert not any("header" in line for line in loaded(file, written("0,1,2,3"), label="last", header=True).notices)
    assert len(loaded(file, written("0,1,2,3", label=[0, 3]), label="last", header=False).x_train) == 33


def test_the_label_is_found_by_its_name_or_asked_for(file):
    for name in ("label", "Class", "TARGET", "y"):
        data = loaded(file, written(f"a,b,c,{name}"))
        assert_mine(data)
        assert f"the column {name} is taken as the label; data.label={name} confirms it" in data.notices[0]
    for header in ("a,b,c,d", "y,b,c,label"):
        message = refused(file, written(header))
        assert f"which column is the label? data.label=NAME, first or last; its columns are {header[0]}, b" in message
    assert refused(file, written(), label="colour").startswith("data.label=colour: no such column, its columns are a,")


def test_a_column_that_numbers_the_rows_is_left_out_and_said_to_be(file):
    for name in ("", "Id", "user_id"):
        rows = [[str(i + 5), *map(str, x), str(y)] for i, (x, y) in enumerate(zip(X, Y, strict=True))]
        content = written(f"{name},a,b,c,label", rows)
        data = loaded(file, content, **KNOWN)
        assert_mine(data)
        confirmed = name or "Unnamed: 0"
        assert f"the column {confirmed} only numbers the rows" in data.notices[0]
        kept, dropped = (loaded(file, content, drop=drop, **KNOWN) for drop in ([], [confirmed]))
        assert (kept.sample_shape, dropped.sample_shape, kept.notices, dropped.notices) == ((4,), (3,), (), ())
    assert "'data.drop=[\"Unnamed: 0\"]' confirms" in loaded(file, content.replace("user_id", "")).notices[0]
    assert "no column z in" in refused(file, content, drop=["z"])
    bare = written(None, [[str(i + 1), *row[1:]] for i, row in enumerate(rows)])
    assert_mine(loaded(file, bare, label="last"))
    assert "'data.drop=[\"0\"]' confirms" in loaded(file, bare, label="last").notices[0]
    counted = written("notes,a,b,c,label", rows)
    assert loaded(file, counted, **KNOWN).sample_shape == (4,)


def test_a_table_of_its_own_to_test_on(file, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(written("label,c,b,a", [[str(y), *map(str, x[::-1])] for x, y in zip(X, Y, strict=True)][:9]))
    data = loaded(file, written(), label="label", test_path=str(other))
    np.testing.assert_array_equal(data.x_train, X)
    np.testing.assert_array_equal(data.x_test, X[:9])
    assert data.y_test.tolist() == Y[:9].tolist()
    assert data.notices == ()
    for header, said in (
        ("a,b,c,d", "no column label, the label"),
        ("a,b,label,d", "no column c of the training table"),
    ):
        other.write_text(written(header))
        message = refused(file, written(), label="label", test_path=str(other))
        assert message.startswith(f"data.test_path={other}: it has {said}")
    assert "has a test set" in refused(file, written(), label="label", test_share=0.5, test_path=str(file))


@pytest.mark.parametrize("separator", ";\t ,")
@pytest.mark.parametrize("header", ["a,b,c,label", None])
def test_a_decimal_comma_is_understood(file, separator, header):
    rows = [[*(str(value).replace(".", ",") for value in x), str(y)] for x, y in zip(X, Y, strict=True)]
    rows = [[f'"{cell}"' for cell in row] for row in rows] if separator == "," else rows
    data = loaded(file, written(header, rows, separator), label="last", test_share=0.2)
    assert_mine(data)
    (notice,) = data.notices
    assert f"such as 0,13 in the column {'a' if header else 0} are read with a decimal comma" in notice


def test_a_comma_that_may_stand_between_thousands_is_asked_about(file):
    message = refused(
        file, written(rows=[["999" if i else "1,012", "0", "1", str(i % 2)] for i in range(9)], separator=";")
    )
    assert "numbers such as 1,012 in the column a may have a decimal comma, or one between thousands" in message
    for key in ("decimal", "thousands"):
        assert f"pd.read_csv(path, sep=';', {key}=',').to_csv(new, index=False)" in message


def changed(column, text, rows=1):
    table = [[*map(str, x), str(y)] for x, y in zip(X, Y, strict=True)]
    for row in table[:rows]:
        row[column] = text
    return written(rows=table)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(1, "?", 3), "the column b has '\\?' among its numbers, in 3 rows; .*na_values=\\['\\?'\\]"),
        (changed(1, "$5.50", 3), "numbers with a unit, such as '\\$5.50', in 3 rows; .*astype\\(float\\)"),
        (changed(1, "red", 40), "the column b holds text; .*data.drop=\\[b\\].*get_dummies.*columns=\\['b'\\]"),
        (changed(1, "", 3), "the column b has no value in 3 of 40 rows; .*fillna"),
        (changed(3, "", 3), "the column label has no value in 3 of 40 rows"),
        (changed(0, "inf"), "the table has 1 NaN or infinite values"),
        (changed(3, "0.5"), "row 0 of the column label is 0.5; .*a class is a whole number"),
        (changed(3, "0", 40), "only the label 0"),
        *(
            (
                changed(1, text, 3),
                f"has {re.escape(repr(text))} among its numbers, in 3 rows, which are no numbers",
            )
            for text in ("(42)", "12:05", "1/2", "5'11", "10k", "5%", "$1;000")
        ),
        (written("a,a ,c,label"), "2 of its columns are called a; give each a name"),
        (written("a,b,label ,label"), "2 of its columns are called label"),
        ('"' + "x" * 140_000 + ",a,label\n1,2,0\n", "cannot be read as a table"),
        ("a,label\n", "names of columns, but no rows"),
        ("label\n1\n0\n", "a label and at least one number"),
        ("", "it is empty"),
        ("a,label\n1,0\n1,2,3,4\n", "cannot be read as a table .*line 3"),
        (b"PK\x03\x04", "no plain text.*read_excel"),
        (b"PK\x03\x04 x_train.npy", "no plain text.*data=npz"),
        ("gr\u00f6\u00dfe,label\n1,0\n".encode("latin-1"), "not UTF-8.*latin-1"),
        (gzip.compress(b"a,label\n1,0\n", mtime=0)[:-9], "cannot be read"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_with_what_to_write(file, content, said):
    message = refused(file, content, label="label")
    assert message.startswith(f"data.path={file}: ")
    assert re.search(said, message)


@pytest.mark.parametrize("separator", ",;\t")
@pytest.mark.parametrize("header", ["a,b,c,label", None])
@pytest.mark.parametrize(
    "write",
    [
        lambda value: f"{value} kg",
        lambda value: f"{value}%",
        lambda value: f"-${-value}" if value < 0 else f"${value}",
        lambda value: str(value).replace("-", "\N{MINUS SIGN}"),
    ],
)
def test_what_is_advised_makes_the_same_numbers(file, tmp_path, separator, header, write):
    rows = [[str(x[0]), write(x[1]), str(x[2]), str(y)] for x, y in zip(X, Y, strict=True)]
    message = refused(file, written(header, rows, separator), label="last")
    follow(message, file, tmp_path / "new.csv")
    assert_mine(loaded(file, (tmp_path / "new.csv").read_bytes(), label="last"))


@pytest.mark.parametrize(
    ("header", "separator", "column", "text"),
    [("a,b,c,label", ";", 1, ""), (None, "\t", 1, "?"), (None, ",", 3, ""), ("a, b, c, label", ",", 1, "red")],
)
def test_what_is_advised_fits_the_file(file, tmp_path, header, separator, column, text):
    rows = [[*map(str, x), str(y)] for x, y in zip(X, Y, strict=True)]
    for row in rows if text == "red" else rows[5:6]:
        row[column] = text
    follow(refused(file, written(header, rows, separator), label="last"), file, tmp_path / "new.csv")
    data = loaded(file, (tmp_path / "new.csv").read_bytes(), label="label" if header else "last")
    assert len(data.x_train) + len(data.x_test) == (39 if text == "?" or column == 3 else 40)


def follow(message, path, new):
    """Do as a message advises, in Python."""
    (line,) = re.findall(r"(?:df = )?pd\..*to_csv\(new[^)]*\)", message)
    exec(line, {"pd": pd, "path": path, "new": new})


def test_words_of_a_label_are_no_gaps(file):
    data = loaded(file, written(label=["NA", "None"]), **KNOWN)
    assert data.y_train.tolist() == Y[ORDER[:32]].tolist()
    assert "'NA', 'None' in the column label is taken as a class, not as a gap" in data.notices[0]
    gap = refused(file, written(label=["NA", ""]), label="label")
    assert "no value in 20 of 40 rows, which is the label; pd.read_csv(path).dropna(subset=['label'])" in gap


def test_a_count_of_the_columns_may_name_the_label(file):
    text = written("1,2,3,species", label=["ant", "bee"])
    data = loaded(file, text, label="last")
    assert_mine(data)
    assert len(loaded(file, text.replace("species", "ant"), label="last").x_train) == 33


def test_what_is_said_of_the_table_to_test_on_is_said(file, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(written(separator=";").replace(".", ","))
    (notice,) = loaded(file, written(), label="label", test_path=str(other)).notices
    assert notice.startswith(f"data.test_path={other}: numbers such as 0,13 in the column a are read")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.path=.*none\.csv: cannot be read"):
        load("csv", path=str(tmp_path / "none.csv"), dtype=np.dtype("float32"))
    with pytest.raises(ConfigError, match=r"data\.path=null: data=csv needs a file"):
        load("csv", dtype=np.dtype("float32"))


def test_rows_are_images_only_if_the_user_says_so(file, tmp_path):
    x = np.random.default_rng(1).integers(0, 256, (40, 64))
    rows = [[str(y), *map(str, row)] for row, y in zip(x, Y, strict=True)]
    for header in ("label," + ",".join(f"pixel{i}" for i in range(64)), None):
        data = loaded(file, written(header, rows), label="first", shape=[8, 8], test_share=0.2)
        np.testing.assert_array_equal(data.x_train, x[ORDER[:32]].reshape(32, 1, 8, 8))
        assert loaded(file, written(header, rows), label="first").sample_shape == (64,)
    words = ("data=csv", f"data.path={file}", "data.label=first")
    with pytest.raises(ConfigError, match=r"data\.shape=\[8,8\] if each is an image"):
        prepared(*words)
    assert prepared(*words, "data.shape=[8,8]").architecture.fitted == (1, 32, 32)
