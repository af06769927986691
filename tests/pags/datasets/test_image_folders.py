"""Streams of images from class folders: order, resuming, decoding, and bad files."""

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from pags_jax import datasets
from pags_jax.datasets import image_folders

needs_grain = pytest.mark.skipif(importlib.util.find_spec("grain") is None, reason="grain is not installed")

# Number of images in each class.
COUNTS = {"n01": 4, "n02": 3, "n03": 5}


@pytest.fixture
def folder(tmp_path):
    """Twelve images of one grey each, 10 times their place in the sorted list, of several sizes and formats."""
    place = 0
    for name, count in COUNTS.items():
        (tmp_path / name).mkdir()
        for k in range(count):
            grey = np.full((8 + k, 12, 3), 10 * place, np.uint8)
            Image.fromarray(grey).save(tmp_path / name / f"{k}.{('png', 'JPEG')[k % 2]}")
            place += 1
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / "stray.png").write_bytes(b"not in a class folder")
    return tmp_path


def places(batch):
    """Which images a batch holds, by their grey."""
    return np.rint(batch.x.reshape(len(batch.x), -1).mean(1) / 10).astype(int).tolist()


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def test_images_are_found_in_order(folder):
    found = datasets.find_images(str(folder))
    assert found.classes == ("n01", "n02", "n03")
    np.testing.assert_array_equal(found.labels, np.repeat([0, 1, 2], list(COUNTS.values())))
    assert found.labels.dtype == np.int32
    assert [path.relative_to(folder).as_posix() for path in found.paths[:5]] == [
        *("n01/0.png", "n01/1.JPEG", "n01/2.png", "n01/3.JPEG", "n02/0.png")
    ]


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*absent"):
        datasets.find_images(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no class folders; expected .*CLASS"):
        datasets.find_images(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"no images \(\.jpg, \.jpeg, \.png\) in the class folders 'cat'"):
        datasets.find_images(tmp_path)


@needs_grain
def test_in_order_without_a_seed(folder):
    batches = list(datasets.image_batches(datasets.find_images(folder), batch_size=5, seed=None, size=4, epochs=1))
    assert [places(batch) for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    labels = np.repeat([0, 1, 2], list(COUNTS.values()))
    np.testing.assert_array_equal(np.concatenate([batch.y for batch in batches]), labels)
    assert all(batch.x.shape[1:] == (4, 4, 3) for batch in batches)
    assert {batch.x.dtype for batch in batches} == {np.dtype(np.uint8)}
    assert {batch.y.dtype for batch in batches} == {np.dtype(np.int32)}


@needs_grain
def test_each_epoch_has_its_own_order_in_whole_batches(folder):
    found = datasets.find_images(folder)
    batches = list(datasets.image_batches(found, batch_size=5, seed=3, size=4, epochs=4))
    assert [len(batch.y) for batch in batches] == [5] * 8
    epochs = [places(batches[k]) + places(batches[k + 1]) for k in range(0, 8, 2)]
    assert all(len(set(epoch)) == 10 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    for batch in batches:
        np.testing.assert_array_equal(batch.y, found.labels[places(batch)])


@needs_grain
def test_batches_depend_on_the_seed_and_not_on_threads(folder):
    found = datasets.find_images(folder)
    streams = [
        take(datasets.image_batches(found, batch_size=3, seed=seed, size=4, threads=threads), 10)
        for seed, threads in ((0, 1), (0, 7), (1, 1))
    ]
    first, again, other = ([places(batch) for batch in stream] for stream in streams)
    assert first == again
    assert first != other


@needs_grain
@pytest.mark.parametrize("epochs", [None, 3])
def test_resumes(folder, epochs):
    found = datasets.find_images(folder)
    options = {"batch_size": 5, "seed": 2, "size": 4, "epochs": epochs}
    whole = take(datasets.image_batches(found, **options), 6)
    for start in (1, 3, 5):
        rest = take(datasets.image_batches(found, start=start, **options), 6 - start)
        assert [places(batch) for batch in rest] == [places(batch) for batch in whole[start:]]
    if epochs:
        assert list(datasets.image_batches(found, start=6, **options)) == []


def test_the_middle_square_is_averaged(tmp_path):
    """A wide picture: left and right edges go, channels keep their place, blocks of 2 x 2 are averaged."""
    rng = np.random.default_rng(0)
    picture = rng.integers(256, size=(8, 14, 3), dtype=np.uint8)
    for name, pixels in (("wide", picture), ("tall", picture.transpose(1, 0, 2))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    blocks = picture[:, 3:11].reshape(4, 2, 4, 2, 3).astype(float).mean((1, 3))
    wide, tall = (image_folders.read_image(tmp_path / f"{name}.png", 4) for name in ("wide", "tall"))
    # Rows and columns are averaged one after the other, and rounded each time.
    assert np.abs(wide - blocks).max() <= 1
    assert np.abs(tall - blocks.transpose(1, 0, 2)).max() <= 1


def test_grey_images_become_three_equal_channels(tmp_path):
    Image.fromarray(np.full((6, 6), 77, np.uint8)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(image_folders.read_image(tmp_path / "grey.png", 3), np.full((3, 3, 3), 77))


@needs_grain
@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_bad_images_are_named(folder, damage):
    path = folder / "n02" / "1.JPEG"
    path.write_bytes({"text": b"hello", "empty": b"", "cut": path.read_bytes()[:-150]}[damage])
    stream = datasets.image_batches(datasets.find_images(folder), batch_size=12, seed=None, size=4, epochs=1)
    with pytest.raises(ValueError, match=r"n02/1\.JPEG is no image that can be read"):
        next(stream)


@needs_grain
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"batch_size": 13}, "`batch_size` must be at most the number of images, 12, got 13"),
        ({"seed": -1}, r"`seed` must be None or from 0 to 2\^32 - 1, got -1"),
        ({"size": 0}, "`size` must be at least 1"),
        ({"threads": 0}, "`threads` must be at least 1"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"start": -1}, "`start` must be from 0"),
        ({"start": 5, "epochs": 1}, "`start` must be from 0 to the number of batches, 4, got 5"),
    ],
)
def test_bad_numbers_are_refused(folder, options, said):
    with pytest.raises(ValueError, match=said):
        datasets.image_batches(datasets.find_images(folder), **({"batch_size": 3, "seed": 0} | options))


def test_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError, match=r"needs grain and pillow .*: pip install grain pillow"):
        datasets.image_batches(datasets.find_images(folder), batch_size=3, seed=0)
