"""Streams of images from class folders: order, resuming, decoding, and bad files."""

import importlib.util
import struct
import sys
import zlib

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


def grey(path):
    Image.new("L", (4, 4), 9).save(path)


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
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        datasets.find_images(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no class folders; expected .*CLASS"):
        datasets.find_images(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"no images \(\.jpg, \.jpeg, .*\) in the class folders 'cat'"):
        datasets.find_images(tmp_path)


def test_classes_keep_their_numbers_where_some_are_missing(folder, tmp_path):
    training = datasets.find_images(folder)
    held_out = tmp_path / "held out"
    for name in ("n03", "n02"):
        (held_out / name).mkdir(parents=True)
    grey(held_out / "n03" / "a.png")
    found = datasets.find_images(held_out, classes=training.classes)
    assert (found.classes, found.labels.tolist()) == (training.classes, [2])
    for classes, said in (
        (["n01", "n02"], "has the class folders 'n03', which are not among `classes`"),
        (["n02", "n02", "n03"], "`classes` must be different names"),
        ("n03", "`classes` must be different names"),
    ):
        with pytest.raises(ValueError, match=said):
            datasets.find_images(held_out, classes=classes)
    (held_out / "n03" / "a.png").unlink()
    with pytest.raises(ValueError, match="no images"):
        datasets.find_images(held_out, classes=training.classes)


def test_hidden_files_are_no_images_and_folders_in_classes_are(tmp_path):
    for name in ("cat/b.png", "cat/deep/a.png", "cat/._b.png", "cat/.cache/c.png", "__MACOSX/._b.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = datasets.find_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == ["cat/b.png", "cat/deep/a.png"]
    (tmp_path / "cat" / "e.TIFF").write_bytes(b"")
    with pytest.raises(ValueError, match=r"e\.TIFF is one of 1 images of a format that is not read"):
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


def png_16_bit(path, values, colour_type):
    """Writes a PNG of 16 bits by hand, as Pillow does not: values ``(h, w, samples)``."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


@pytest.mark.parametrize(("samples", "colour_type"), [(1, 0), (3, 2), (2, 4), (4, 6)])
def test_of_16_bits_the_upper_eight_are_kept(samples, colour_type, tmp_path):
    values = np.random.default_rng(0).integers(65536, size=(8, 8, samples), dtype=np.uint16)
    if samples in (2, 4):
        values[..., -1] = 65535  # opaque
    png_16_bit(tmp_path / "deep.png", values, colour_type)
    expected = np.broadcast_to((values >> 8)[..., : 3 if samples > 2 else 1], (8, 8, 3))
    np.testing.assert_array_equal(image_folders.read_image(tmp_path / "deep.png", 8), expected)


def test_pixels_of_every_kind_become_colours(tmp_path):
    colours = np.random.default_rng(1).integers(256, size=(8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(colours)
    bits = picture.convert("1")
    palette = picture.quantize(256)
    for image, expected in (
        (picture.convert("RGBA"), colours),
        (bits, np.repeat(255 * np.asarray(bits, np.uint8)[..., None], 3, 2)),
        (palette, np.asarray(palette.convert("RGB"))),
    ):
        image.save(tmp_path / "image.png")
        np.testing.assert_array_equal(image_folders.read_image(tmp_path / "image.png", 8), expected)
    flat = Image.new("RGB", (8, 8), (200, 100, 50))
    flat.convert("CMYK").save(tmp_path / "inks.jpg", quality=100)
    assert np.abs(image_folders.read_image(tmp_path / "inks.jpg", 4).astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_pictures_are_turned_upright(ending, tmp_path):
    """EXIF orientation 6: the camera was turned, and the file's left column is the picture's top row."""
    sideways = np.zeros((8, 8, 3), np.uint8)
    sideways[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(sideways).save(tmp_path / f"phone.{ending}", exif=exif)
    upright = image_folders.read_image(tmp_path / f"phone.{ending}", 2)
    np.testing.assert_array_equal(upright, np.repeat([[[255]], [[0]]], 2, 1).repeat(3, 2))


@pytest.mark.parametrize("kind", ["alpha", "palette", "grey", "colour"])
def test_transparent_pixels_are_refused(kind, tmp_path):
    path = tmp_path / "cut out.png"
    if kind == "alpha":
        Image.new("RGBA", (4, 4), (9, 9, 9, 128)).save(path)
    elif kind == "palette":
        Image.new("P", (4, 4), 0).save(path, transparency=0)
    else:  # a colour that stands for none
        Image.new("L" if kind == "grey" else "RGB", (4, 4), 7 if kind == "grey" else (7, 7, 7)).save(
            path, transparency=7 if kind == "grey" else (7, 7, 7)
        )
    with pytest.raises(ValueError, match=r"cut out\.png .*it has transparent pixels, .* put it on a background"):
        image_folders.read_image(path, 2)


def test_a_palette_with_opaque_entries_is_read_without_a_warning(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([255, 255]))
    assert image_folders.read_image(tmp_path / "a.png", 1).tolist() == [[[10, 20, 30]]]


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
