"""ImageNet64x64's npz batches, in small fakes of the released layout."""

import numpy as np
import pytest

from pags_jax import datasets
from pags_jax.datasets import imagenet64


def planes(x):
    """Rows as released: each colour's plane, row by row."""
    return np.stack([np.concatenate([image[..., c].reshape(-1) for c in range(3)]) for image in x])


def draw(seed, n):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(n, 64, 64, 3), dtype=np.uint8), rng.integers(1, 1001, size=n)


def write(folder, seed=0):
    """Ten train batches of 2 and 3 validation images; returns them."""
    batches = {f"train_data_batch_{k}.npz": draw(seed + k, 2) for k in range(1, 11)}
    batches["val_data.npz"] = draw(seed, 3)
    for k, (name, (x, y)) in enumerate(batches.items()):
        # The release keeps labels as lists of Python numbers, some pixel means beside them.
        save = np.savez if k % 2 else np.savez_compressed
        save(folder / name, data=planes(x), labels=y.tolist(), mean=x.mean(0))
    return batches


def test_all_batches(tmp_path):
    batches = write(tmp_path)
    images = datasets.load("imagenet64", folder=tmp_path)
    train = [batches[f"train_data_batch_{k}.npz"] for k in range(1, 11)]
    np.testing.assert_array_equal(images.train_x, np.concatenate([x for x, _ in train]))
    np.testing.assert_array_equal(images.train_y, np.concatenate([y for _, y in train]) - 1)
    np.testing.assert_array_equal(images.test_x, batches["val_data.npz"][0])
    np.testing.assert_array_equal(images.test_y, batches["val_data.npz"][1] - 1)
    assert images.train_x.dtype == np.uint8
    assert images.train_y.dtype == np.int32
    assert images.classes == tuple(str(k) for k in range(1, 1001))


def test_some_batches_and_names(tmp_path):
    batches = write(tmp_path)
    (tmp_path / "map_clsloc.txt").write_text("".join(f"n{k:08} {k} thing_{k}\n" for k in range(1000, 0, -1)))
    images = datasets.load("imagenet64", folder=str(tmp_path), batches=(7, 2))
    np.testing.assert_array_equal(images.train_x[:2], batches["train_data_batch_7.npz"][0])
    np.testing.assert_array_equal(images.train_x[2:], batches["train_data_batch_2.npz"][0])
    assert images.classes == tuple(f"thing_{k}" for k in range(1, 1001))
    (tmp_path / "map_clsloc.txt").write_text("n1 1 thing\n")
    with pytest.raises(
        ValueError, match=r"map_clsloc\.txt names 1 classes, expected one line each for the labels 1 to"
    ):
        datasets.load("imagenet64", folder=tmp_path)


def saved(**arrays):
    return lambda path: np.savez(path, **arrays)


def cut(path):
    path.write_bytes(path.read_bytes()[:-500])


def flip(path):
    content = bytearray(path.read_bytes())
    content[5000] ^= 0xFF
    path.write_bytes(content)


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


ROWS = np.zeros((2, 12288), np.uint8)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), r"no file .*batch_4\.npz"),
        (cut, "is damaged or cut off"),
        (flip, "is damaged or cut off"),
        (lambda path: path.write_bytes(b""), "is damaged or cut off"),
        (lambda path: path.write_bytes(b"\x80\x04K\x01."), "is damaged or cut off, or no npz of plain arrays"),
        (one_array, "is damaged or cut off, or no npz of plain arrays"),
        (saved(data=ROWS), r"has no array 'labels', only 'data'"),
        (saved(data=ROWS, labels=np.array([1, None])), "no npz of plain arrays"),
        (
            saved(data=ROWS[:, :3072], labels=[1, 2]),
            r"data uint8 of the shape \(2, 3072\), expected uint8 \(n, 12288\)",
        ),
        (saved(data=ROWS.astype(np.float32), labels=[1, 2]), "data float32 of the shape"),
        (saved(data=ROWS[:0], labels=np.zeros(0, int)), r"of the shape \(0, 12288\)"),
        (saved(data=ROWS, labels=[1, 2, 3]), r"labels int64 of the shape \(3,\), expected 2 whole numbers"),
        (saved(data=ROWS, labels=[1.0, 2.0]), "labels float64"),
        (saved(data=ROWS, labels=[1, 0]), r"the label 0 at record 1 \(from 0\), expected 1 to 1000"),
        (saved(data=ROWS, labels=[1001, 1]), r"the label 1001 at record 0"),
    ],
)
def test_bad_files_are_refused(tmp_path, damage, said):
    write(tmp_path)
    damage(tmp_path / "train_data_batch_4.npz")
    error = FileNotFoundError if "no file" in said else ValueError
    with pytest.raises(error, match=rf"(?s)train_data_batch_4\.npz|{said}") as caught:
        datasets.load("imagenet64", folder=tmp_path)
    for part in (said, r"train_data_batch_4\.npz", "; get the npz batches"):
        assert caught.match(part)


@pytest.mark.parametrize("batches", [(), (0,), (11,), (1, 1)])
def test_bad_batch_numbers_are_refused(tmp_path, batches):
    with pytest.raises(ValueError, match="`batches` must be different numbers from 1 to 10"):
        imagenet64.load_imagenet64(tmp_path, batches=batches)


def test_a_folder_is_asked_for():
    with pytest.raises(ValueError, match=r"'imagenet64' needs folder=; get the npz batches .* account"):
        datasets.load("imagenet64")
