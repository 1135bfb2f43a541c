"""MNIST: the IDX files, where they are looked for, and the download, against a server on this machine."""

import gzip
import hashlib
import logging
import os
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ablate.errors import ConfigError
from ablate.problem.data import mnist
from ablate.problem.data.loading import DATA_SETS, load

TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
REAL = os.environ.get("ABLATE_DATA")
needs_mnist = pytest.mark.skipif(not REAL, reason="ABLATE_DATA is not set: no MNIST on this machine")


def idx(array, type_code=8):
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, type_code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def pixels(rows, seed=0, height=5, width=4):
    return np.random.default_rng(seed).integers(0, 256, (rows, height, width), dtype=np.uint8)


ARRAYS = {TRAIN_X: pixels(6), TRAIN_Y: [0, 1, 2, 3, 4, 9], TEST_X: pixels(3, seed=1), TEST_Y: [9, 0, 4]}
SMALL = {name: idx(array) for name, array in ARRAYS.items()}


def write(folder, contents, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


def loaded(normalize="none", **arguments):
    return load("mnist", normalize=normalize, dtype=np.dtype("float32"), **arguments)


def refused(**arguments):
    """The one line that `load` refuses these arguments with."""
    with pytest.raises(ConfigError) as caught:
        loaded(**arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_small(data):
    np.testing.assert_array_equal(data.x_train[:, 0], ARRAYS[TRAIN_X])
    np.testing.assert_array_equal(data.x_test[:, 0], ARRAYS[TEST_X])
    assert data.y_train.tolist() == ARRAYS[TRAIN_Y]
    assert data.y_test.tolist() == ARRAYS[TEST_Y]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """No setting of the machine, and a cache of its own, for every test."""
    for name in ("ABLATE_DATA", "ABLATE_MNIST_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def small_is_mnist(monkeypatch):
    """Makes the small files the ones expected."""
    for name, content in SMALL.items():
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(content).hexdigest())


# The real files


@needs_mnist
def test_the_real_files_from_a_folder_and_from_the_environment(monkeypatch):
    by_dir = loaded(dir=str(Path(REAL) / "mnist"), train_limit=100, test_limit=100)
    monkeypatch.setenv("ABLATE_DATA", REAL)
    by_environment = loaded()
    assert by_environment.x_train.shape == (60000, 1, 28, 28)
    assert by_environment.x_test.shape == (10000, 1, 28, 28)
    assert np.bincount(by_environment.y_train).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert by_environment.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert by_environment.x_train.max() == 255
    np.testing.assert_array_equal(by_dir.x_train, by_environment.x_train[:100])
    assert by_dir.source == by_environment.source == str(Path(REAL) / "mnist")
    assert by_dir.notices == by_environment.notices == ()


@needs_mnist
def test_the_real_images_are_standardised_one_by_one():
    folder = str(Path(REAL) / "mnist")
    plain = loaded(dir=folder, train_limit=900, test_limit=1).x_train.astype(np.float64)
    oracle = np.stack([(image - np.mean(image)) / np.std(image) for image in plain])
    data = loaded("per_image", dir=folder, train_limit=900, test_limit=1)
    np.testing.assert_array_equal(data.x_train, oracle.astype(np.float32))


# Folders


def test_the_preset_batch_size():
    assert DATA_SETS.get("mnist").batch_size == 300


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_plain_and_compressed_files(tmp_path, suffix):
    data = loaded(dir=str(write(tmp_path, SMALL, suffix)))
    assert_small(data)
    assert (data.name, data.source, data.classes) == ("mnist", str(tmp_path), 10)
    assert data.sample_shape == (1, 5, 4)


def test_unit_maps_0_to_255(tmp_path):
    data = loaded("unit", dir=str(write(tmp_path, SMALL)))
    np.testing.assert_array_equal(data.x_train[:, 0], (ARRAYS[TRAIN_X] / 255).astype(np.float32))


def test_the_folder_of_the_environment_gives_way_to_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path / "shelf"))
    write(tmp_path / "shelf" / "mnist", SMALL)
    assert loaded().source == str(tmp_path / "shelf" / "mnist")
    assert loaded(dir=str(write(tmp_path / "mine", SMALL))).source == str(tmp_path / "mine")


def test_other_content_is_used_with_one_notice_unless_it_was_named(tmp_path, monkeypatch):
    folder = str(write(tmp_path / "mnist", SMALL))
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path))
    (notice,) = loaded().notices
    assert notice.startswith(f"ABLATE_DATA={tmp_path}: not the well-known MNIST")
    assert loaded(dir=folder).notices == ()


def test_the_expected_content_is_used_in_silence(tmp_path, monkeypatch, small_is_mnist):
    write(tmp_path / "mnist", SMALL)
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path))
    assert loaded().notices == ()


def of_emnist(split):
    return lambda name: f"emnist-{split}-{name.replace('t10k', 'test')}"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "name_of",
    [
        lambda name: name.replace("-idx", ".idx"),
        lambda name: f"MNIST/raw/{name}",
        lambda name: f"raw/{name}",
        of_emnist("letters"),
        lambda name: f"gzip/{of_emnist('mnist')(name)}",
        lambda name: f"{name}/{name.replace('-idx', '.idx')}",
        lambda name: name.replace("t10k", "test").upper(),
    ],
)
def test_files_go_by_all_names_in_use(tmp_path, name_of, suffix):
    for name, content in SMALL.items():
        path = tmp_path / name_of(name)
        write(path.parent, {path.name: content}, suffix)
    data = loaded(dir=str(tmp_path))
    assert_small(data)
    assert data.classes == 10


def test_the_folder_named_comes_before_those_in_it(tmp_path):
    write(tmp_path, SMALL)
    write(tmp_path / "MNIST" / "raw", SMALL | {TEST_Y: idx([1, 1, 1])})
    assert_small(loaded(dir=str(tmp_path)))
    (tmp_path / f"{TEST_X}.gz").unlink()
    assert loaded(dir=str(tmp_path)).y_test.tolist() == [1, 1, 1]
    write(tmp_path / "FashionMNIST" / "raw", SMALL)
    message = refused(dir=str(tmp_path))
    assert f"name one: {tmp_path / 'FashionMNIST' / 'raw'}, {tmp_path / 'MNIST' / 'raw'}" in message


def test_of_several_sets_one_is_chosen(tmp_path):
    for split, last in (("letters", 3), ("digits", 4)):
        contents = SMALL | {TEST_Y: idx([0, 1, last])}
        write(tmp_path, {of_emnist(split)(name): content for name, content in contents.items()})
    assert "choose one with data.split=digits|letters" in refused(dir=str(tmp_path))
    assert loaded(dir=str(tmp_path), split="letters").y_test[-1] == 3
    assert loaded(dir=str(tmp_path), split="EMNIST-Digits").y_test[-1] == 4
    assert refused(dir=str(tmp_path), split="mnist").endswith("choose one of digits, letters")
    write(tmp_path, SMALL)
    assert_small(loaded(dir=str(tmp_path)))
    plain = str(write(tmp_path / "plain", SMALL))
    assert refused(dir=plain, split="letters").endswith("its files have no splits; leave it out")
    assert "no emnist-letters-train-images" in refused(dir=str(tmp_path / "none"), split="letters")
    assert refused(split="letters").startswith("data.split=letters: ")


def test_labels_above_9_are_those_of_other_sets(tmp_path):
    write(tmp_path, SMALL | {TRAIN_Y: idx([1, 2, 26, 1, 2, 26]), TEST_Y: idx([26, 1, 2])})
    data = loaded(dir=str(tmp_path))
    assert (data.y_train.tolist(), data.y_test.tolist(), data.classes) == ([0, 1, 2] * 2, [2, 0, 1], 3)
    (notice,) = data.notices
    assert f"{TRAIN_Y}.gz has the labels 1, 2, 26: taken as the classes 0..2" in notice
    assert loaded(dir=str(tmp_path), labels="as_is").classes == 27
    write(tmp_path, {TEST_Y: idx([26, 1, 47])})
    message = refused(dir=str(tmp_path))
    assert f"{TEST_Y}.gz has the label 47, " in message
    assert f"{TRAIN_Y}.gz only 1, 2, 26; train on every class" in message
    assert "np." not in message


def test_fewer_digits_are_fewer_classes_only_if_asked_for(tmp_path):
    write(tmp_path, {**SMALL, TRAIN_Y: idx([3, 8, 3, 8, 3, 3]), TEST_Y: idx([3, 8, 8])})
    assert [loaded(dir=str(tmp_path), labels=policy).classes for policy in ("auto", "remap", "as_is")] == [10, 2, 9]
    write(tmp_path, {**SMALL, TRAIN_Y: idx([3] * 6), TEST_Y: idx([3] * 3)})
    assert "all 6 training rows in use are of class 3, and there are no others" in loaded(dir=str(tmp_path)).notices[-1]
    assert "data.train_limit takes the first" in loaded(dir=str(tmp_path), train_limit=2).notices[-1]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_told_with_the_folder(tmp_path, monkeypatch, name):
    folder = write(tmp_path / "mnist", SMALL)
    (folder / f"{name}.gz").unlink()
    message = refused(dir=str(folder))
    assert f"data.dir={folder}" in message
    assert name in message
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path))
    message = refused()
    assert f"ABLATE_DATA={tmp_path}" in message
    assert f"{name}.gz in the folder {folder}" in message


def test_a_missing_folder_is_told(tmp_path):
    assert str(tmp_path / "none") in refused(dir=str(tmp_path / "none"))


images, labels = SMALL[TRAIN_X], SMALL[TRAIN_Y]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (TRAIN_X, images[:-1], "truncated"),
        (TRAIN_X, images[:10], "truncated"),
        (TRAIN_X, images[:3], "truncated"),
        (TEST_Y, b"", "truncated"),
        (TRAIN_X, images + b"\0", "1 trailing bytes"),
        (TRAIN_X, b"\1" + images[1:], "not an IDX file"),
        (TRAIN_X, gzip.compress(images, mtime=0), "not an IDX file"),
        (TRAIN_X, images[:2] + b"\x0d" + images[3:], "type code 13"),
        (TRAIN_X, labels, "number of dimensions 1, 3"),
        (TRAIN_Y, images, "number of dimensions 3, 1"),
        (TRAIN_X, idx(np.zeros((0, 5, 4))), "empty"),
        (TRAIN_Y, idx([]), "empty"),
        (TRAIN_X, idx(np.zeros((6, 5, 0))), "empty"),
        (TRAIN_Y, idx([0, 1, 2, 3, 4]), "5 labels for 6 images"),
        (TEST_Y, idx([0, 1, 2, 3]), "4 labels for 3 images"),
        (TEST_X, idx(pixels(3, height=4, width=5)), "4x5"),
        (TRAIN_X, bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(120), "truncated"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path, name, content, complaint):
    write(tmp_path, SMALL | {name: content}, suffix="")
    message = refused(dir=str(tmp_path))
    assert message.startswith(f"{tmp_path / name}: ")
    assert complaint in message


whole = gzip.compress(images)


@pytest.mark.parametrize(
    "content",
    [
        whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        whole[:-12],
        whole[:5],
        whole[:12] + b"\xff\xff\xff\xff" + whole[16:],
        b"<html>not here</html>",
        images,
    ],
    ids=["bad CRC", "no end", "half a header", "bad stream", "a web page", "not compressed"],
)
def test_a_bad_gz_is_named(tmp_path, content):
    write(tmp_path, SMALL)
    (tmp_path / f"{TRAIN_X}.gz").write_bytes(content)
    assert refused(dir=str(tmp_path)).startswith(f"{tmp_path / TRAIN_X}.gz: cannot be read")


# The download


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.requestline.split()[1])
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(request):
    """A function that serves a folder and returns the server; `server.asked` lists what was asked for."""

    def start(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        request.addfinalizer(server.server_close)
        request.addfinalizer(server.shutdown)
        return server

    return start


@pytest.fixture
def good(serve, tmp_path, small_is_mnist):
    return serve(write(tmp_path / "good", SMALL))


@pytest.fixture
def nowhere(serve, tmp_path):
    """The address of a server that has gone."""
    server = serve(tmp_path)
    server.shutdown()
    server.server_close()
    return server.url


def cached(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "mnist").glob("*"))


def test_it_is_downloaded_once(tmp_path, good, monkeypatch, caplog, capfd):
    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    caplog.set_level(logging.INFO)
    first = loaded()
    assert_small(first)
    assert sorted(good.asked) == sorted(f"/{name}.gz" for name in FILES)
    (record,) = caplog.records
    assert record.name == "ablate"
    assert str(tmp_path / "cache" / "mnist") in record.getMessage()
    assert capfd.readouterr() == ("", "")

    again = loaded()
    assert_small(again)
    assert len(good.asked) == 4
    assert len(caplog.records) == 1
    assert again.source == first.source == str(tmp_path / "cache" / "mnist")
    assert cached(tmp_path) == sorted(FILES)


def test_a_mirror_of_ones_own_is_the_only_one_asked(good, nowhere, serve, tmp_path, monkeypatch):
    public = serve(tmp_path / "good")
    monkeypatch.setattr(mnist, "MIRRORS", (public.url,))
    monkeypatch.setenv("ABLATE_MNIST_URL", good.url.rstrip("/"))
    assert_small(loaded())
    assert sorted(good.asked) == sorted(f"/{name}.gz" for name in FILES)
    assert not public.asked


def test_the_second_mirror_is_asked_where_the_first_is_down(good, nowhere, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (nowhere, good.url))
    assert_small(loaded())


def test_the_second_mirror_gives_what_the_first_does_not_have(good, serve, tmp_path, monkeypatch):
    half = serve(write(tmp_path / "half", {TRAIN_X: SMALL[TRAIN_X]}))
    monkeypatch.setattr(mnist, "MIRRORS", (half.url, good.url))
    assert_small(loaded())


def test_with_both_mirrors_down_it_says_what_to_do(nowhere, serve, tmp_path, monkeypatch):
    empty = serve(write(tmp_path / "empty", {}))
    monkeypatch.setattr(mnist, "MIRRORS", (nowhere, empty.url))
    message = refused()
    for part in (
        "data=mnist",
        nowhere,
        empty.url,
        "Connection refused",
        "404",
        "data.dir",
        "ABLATE_DATA/mnist",
        "data=digits",
    ):
        assert part in message


def test_a_server_that_never_answers_is_given_up(serve, tmp_path, monkeypatch):
    released = threading.Event()
    server = serve(tmp_path)
    monkeypatch.setattr(Handler, "do_GET", lambda self: released.wait(10))
    monkeypatch.setattr(mnist, "MIRRORS", (server.url,))
    monkeypatch.setattr(mnist, "TIMEOUT_SECONDS", 0.05)
    assert "timed out" in refused()
    released.set()


@pytest.mark.parametrize("url", ["nonsense", "gopher://127.0.0.1/", "http://"])
def test_a_wrong_address_is_refused(url, monkeypatch):
    monkeypatch.setenv("ABLATE_MNIST_URL", url)
    assert url in refused()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(idx(pixels(6, seed=9))),
        whole[:-9],
        whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        whole[:10] + b"\xff" * 20,
        b"<html>Log in first</html>",
    ],
    ids=["other images", "truncated", "bad CRC", "bad stream", "a web page"],
)
def test_wrong_content_is_refused_and_not_kept(tmp_path, good, monkeypatch, content):
    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    served = tmp_path / "good" / f"{TRAIN_X}.gz"
    right = served.read_bytes()
    served.write_bytes(content)
    assert "data=mnist: the download failed" in refused()
    assert TRAIN_X not in cached(tmp_path)

    served.write_bytes(right)
    assert_small(loaded())
    assert cached(tmp_path) == sorted(FILES)


def test_a_transfer_that_breaks_off_is_refused(good, monkeypatch):
    def broken(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(whole[:20])

    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    with monkeypatch.context() as patch:
        patch.setattr(Handler, "do_GET", broken)
        assert "the download failed" in refused()
    assert_small(loaded())


def test_compression_undone_on_the_way_does_no_harm(good, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    end_headers = Handler.end_headers

    def declared(self):
        self.send_header("Content-Encoding", "gzip")
        end_headers(self)

    monkeypatch.setattr(Handler, "end_headers", declared)
    assert_small(loaded())


def test_a_damaged_cache_is_mended(tmp_path, good, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    loaded()
    (tmp_path / "cache" / "mnist" / TEST_X).write_bytes(SMALL[TEST_X][:-1])
    assert_small(loaded())
    assert good.asked[4:] == [f"/{TEST_X}.gz"]
    assert (tmp_path / "cache" / "mnist" / TEST_X).read_bytes() == SMALL[TEST_X]


def test_a_cache_that_cannot_be_written_is_told(tmp_path, good, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    message = refused()
    assert "ABLATE_CACHE" in message
    assert str(tmp_path / "cache") in message


def test_the_cache_may_be_shared_with_others(tmp_path, good, nowhere, monkeypatch, caplog):
    """Its files are for whom the umask lets read them; a mirror that is down is no second notice."""
    monkeypatch.setattr(mnist, "MIRRORS", (nowhere, good.url))
    caplog.set_level(logging.INFO)
    before = os.umask(0o022)
    try:
        loaded()
    finally:
        os.umask(before)
    assert {(tmp_path / "cache" / "mnist" / name).stat().st_mode & 0o777 for name in FILES} == {0o644}
    assert len(caplog.records) == 1


def test_the_cache_is_the_users_own_by_default(tmp_path, good, monkeypatch):
    monkeypatch.delenv("ABLATE_CACHE")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "home" / project)
    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    assert loaded().source == str(tmp_path / "home" / "ablate" / "mnist")


def test_downloads_at_the_same_time_do_not_harm_each_other(tmp_path, good, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (good.url,))
    with ThreadPoolExecutor(8) as pool:
        for data in pool.map(lambda _: loaded(), range(16)):
            assert_small(data)
    assert cached(tmp_path) == sorted(FILES)


def test_processes_at_the_same_time_do_not_harm_each_other(tmp_path, good):
    script = (
        "import sys, numpy as np; from ablate.problem.data import mnist; from ablate.problem.data.loading import load;"
        "mnist.SHA256.update(zip(mnist.SHA256, sys.argv[1:]));"
        "print(load('mnist', normalize='none', dtype=np.dtype('float32')).digest)"
    )
    command = [sys.executable, "-c", script, *mnist.SHA256.values()]
    environment = os.environ | {"ABLATE_MNIST_URL": good.url}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    digests = {process.communicate()[0].strip() for process in running}
    assert digests == {loaded().digest}
    assert cached(tmp_path) == sorted(FILES)
