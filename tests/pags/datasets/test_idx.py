"""The idx format, and image sets of four idx files in folders and behind a real server on this machine."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import re
import struct
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pags_jax.datasets import idx, idx_folders, mnist, reading

SHAPES = {"train-images-idx3-ubyte": (20, 28, 28), "t10k-images-idx3-ubyte": (10, 28, 28)}


def draw_arrays(seed=0):
    """The four arrays of a small set of 10 classes, by stem."""
    rng = np.random.default_rng(seed)
    arrays = {stem: rng.integers(256, size=shape, dtype=np.uint8) for stem, shape in SHAPES.items()}
    return arrays | {
        "train-labels-idx1-ubyte": (np.arange(20) % 10).astype(np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(10)[::-1]).astype(np.uint8),
    }


def idx_bytes(array):
    """An idx file by the format's own page, not by the package."""
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def write_set(folder, arrays, *, name="{}.gz"):
    folder.mkdir(exist_ok=True)
    for stem, array in arrays.items():
        path = folder / name.format(stem)
        content = idx_bytes(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)))
def test_round_trip(array):
    content = idx.encode(array)
    assert content == idx_bytes(array)
    np.testing.assert_array_equal(idx.decode(content, ndim=array.ndim, source="x"), array)


@given(hnp.arrays(np.uint8, (2, 3, 2)), st.data())
def test_no_other_length_is_read(array, data):
    content = idx.encode(array)
    length = data.draw(st.integers(0, 2 * len(content)).filter(lambda n: n != len(content)))
    with pytest.raises(ValueError, match=r"x (is|begins)"):
        idx.decode((content + bytes(len(content)))[:length], ndim=3, source="x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "x begins with the bytes '', expected '00 00 08 03'"),
        (b"\x89PNG", "begins with the bytes '89 50 4e 47', expected '00 00 08 03'"),
        (idx_bytes(np.zeros(4, np.uint8)), "begins with the bytes '00 00 08 01'"),
        (b"\0\0\x0d\x03" + bytes(12), "begins with the bytes '00 00 0d 03'"),
        (b"\0\0\x08\x03" + bytes(3), "x is cut off: 7 bytes, expected a header of 16 bytes"),
        (idx_bytes(np.zeros((2, 3, 4), np.uint8))[:-1], r"39 bytes, expected 40 for the shape \(2, 3, 4\)"),
        (idx_bytes(np.zeros((2, 3, 4), np.uint8)) + b"0", r"41 bytes, expected 40"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "expected 79228162458924105385300197391"),
    ],
)
def test_what_is_no_idx_is_refused(content, said):
    with pytest.raises(ValueError, match=said):
        idx.decode(content, ndim=3, source="x")


@pytest.mark.parametrize("name", ["{}.gz", "{}", "dots"])
def test_folder_is_read(tmp_path, name):
    arrays = draw_arrays()
    if name == "dots":
        write_set(tmp_path, {stem.replace("-idx", ".idx"): array for stem, array in arrays.items()}, name="{}")
    else:
        write_set(tmp_path, arrays, name=name)
    images = idx_folders.load_idx_set(mnist.MNIST, tmp_path)
    np.testing.assert_array_equal(images.train_x, arrays["train-images-idx3-ubyte"][..., None])
    np.testing.assert_array_equal(images.test_x, arrays["t10k-images-idx3-ubyte"][..., None])
    np.testing.assert_array_equal(images.train_y, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(images.test_y, arrays["t10k-labels-idx1-ubyte"])
    assert images.train_x.dtype == images.test_x.dtype == np.uint8
    assert images.train_y.dtype == images.test_y.dtype == np.int32
    assert images.train_x.flags.writeable
    assert images.classes == tuple("0123456789")
    assert images.train_mask is None


def test_test_images_alone_are_split(tmp_path):
    arrays = {stem: array for stem, array in draw_arrays().items() if stem.startswith("t10k")}
    write_set(tmp_path, arrays)
    images = mnist.load_test_images(tmp_path)
    x, y = arrays["t10k-images-idx3-ubyte"][..., None], arrays["t10k-labels-idx1-ubyte"]
    np.testing.assert_array_equal(images.test_x, x[[4, 9]])
    np.testing.assert_array_equal(images.test_y, y[[4, 9]])
    np.testing.assert_array_equal(images.train_x, x[[0, 1, 2, 3, 5, 6, 7, 8]])
    np.testing.assert_array_equal(images.train_y, y[[0, 1, 2, 3, 5, 6, 7, 8]])


def test_fewer_test_images_than_a_split_needs_are_refused(tmp_path):
    arrays = {stem: array[:4] for stem, array in draw_arrays().items() if stem.startswith("t10k")}
    write_set(tmp_path, arrays)
    with pytest.raises(ValueError, match="holds 4 test images, expected at least 5"):
        mnist.load_test_images(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def replaced(array):
    return lambda path: path.write_bytes(gzip.compress(idx_bytes(array)))


def labelled_10(path):
    labels = draw_arrays()["train-labels-idx1-ubyte"]
    labels[7] = 10
    replaced(labels)(path)


@pytest.mark.parametrize(
    ("stem", "damage", "said"),
    [
        ("train-images-idx3-ubyte", lambda path: path.unlink(), r"no file .*train-images-idx3-ubyte\.gz"),
        ("t10k-labels-idx1-ubyte", lambda path: path.unlink(), r"no file .*t10k-labels-idx1-ubyte\.gz"),
        ("train-images-idx3-ubyte", cut, r"train-images.* is damaged or cut off: \d+ bytes that are no whole gzip"),
        ("t10k-images-idx3-ubyte", flip, r"t10k-images.* is damaged or cut off: \d+ bytes that are no whole gzip"),
        ("train-images-idx3-ubyte", lambda path: path.write_bytes(b""), r"begins with the bytes '', expected"),
        (
            "t10k-images-idx3-ubyte",
            replaced(np.zeros((10, 32, 32), np.uint8)),
            r"t10k-images.* shape \(10, 32, 32\), expected \(n, 28, 28\)",
        ),
        ("t10k-images-idx3-ubyte", replaced(np.zeros((0, 28, 28), np.uint8)), r"shape \(0, 28, 28\), .* n at least 1"),
        (
            "train-labels-idx1-ubyte",
            replaced(np.zeros(19, np.uint8)),
            r"train-labels.* has 19 labels, expected 20, one for each image of train-images",
        ),
        ("train-labels-idx1-ubyte", labelled_10, r"train-labels.* the label 10 at record 7 .*expected 0 to 9"),
        ("train-labels-idx1-ubyte", replaced(np.zeros((20, 1), np.uint8)), r"begins with .*'00 00 08 02'.*1 axes"),
    ],
)
def test_bad_folder_is_refused(tmp_path, stem, damage, said):
    write_set(tmp_path, draw_arrays())
    damage(tmp_path / f"{stem}.gz")
    error = FileNotFoundError if "no file" in said else ValueError
    with pytest.raises(error, match=f"(?s){said}.*; get the files of mnist from https://"):
        idx_folders.load_idx_set(mnist.MNIST, tmp_path)


def test_contents_of_another_checksum_are_refused(tmp_path):
    arrays = draw_arrays()
    write_set(tmp_path, arrays)
    digests = {stem: hashlib.sha256(idx_bytes(array)).hexdigest() for stem, array in arrays.items()}
    idx_folders.read_folder(tmp_path, classes=mnist.MNIST.classes, content_sha256=digests)
    arrays["t10k-images-idx3-ubyte"][3, 4, 5] ^= 1
    write_set(tmp_path, arrays)
    with pytest.raises(ValueError, match=f"t10k-images.*SHA-256 .*, expected {digests['t10k-images-idx3-ubyte']}"):
        idx_folders.read_folder(tmp_path, classes=mnist.MNIST.classes, content_sha256=digests)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    requested: tuple[str, ...] = ()

    def log_message(self, format, *args):
        QuietHandler.requested += (self.path,)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A small set on a server of this machine, and an empty cache."""
    write_set(tmp_path / "served", draw_arrays())
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
    monkeypatch.setattr(QuietHandler, "requested", ())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(reading.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        digests = {
            stem: hashlib.sha256((tmp_path / "served" / f"{stem}.gz").read_bytes()).hexdigest()
            for stem in idx_folders.STEMS
        }
        yield dataclasses.replace(mnist.MNIST, address=f"http://127.0.0.1:{server.server_address[1]}/", sha256=digests)
        server.shutdown()
        thread.join()


def test_download_is_read_and_kept(served):
    images = idx_folders.load_idx_set(served, None)
    np.testing.assert_array_equal(images.train_x[..., 0], draw_arrays()["train-images-idx3-ubyte"])
    assert sorted(QuietHandler.requested) == sorted(f"/{stem}.gz" for stem in idx_folders.STEMS)
    again = idx_folders.load_idx_set(served, None)
    np.testing.assert_array_equal(again.test_y, images.test_y)
    assert len(QuietHandler.requested) == 4


def test_download_of_another_checksum_is_refused(served, tmp_path):
    (tmp_path / "served" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(ValueError, match=r"cannot download http.*train-labels.*does not match.*pass folder="):
        idx_folders.load_idx_set(served, None)
    assert not (tmp_path / "cache" / "pags_jax" / "mnist" / "train-labels-idx1-ubyte.gz").exists()


def test_failed_download_says_what_to_do(served, tmp_path):
    (tmp_path / "served" / "train-images-idx3-ubyte.gz").unlink()
    address = re.escape(f"{served.address}train-images-idx3-ubyte.gz")
    with pytest.raises(ValueError, match=f"cannot download {address}: .*404.*download it by hand into a folder"):
        idx_folders.load_idx_set(served, None)
