"""Fashion-MNIST: the bundled subset, where the whole set is looked for, and the script that makes the subset."""

import gzip
import hashlib
import shutil

import numpy as np
import pytest

from pags_jax import datasets
from pags_jax.datasets import fashion_mnist, idx_folders
from tests.pags.datasets.test_idx import draw_arrays, idx_bytes, write_set


@pytest.fixture(scope="module")
def images():
    return datasets.load("fashion_mnist")


def test_bundled_subset_is_balanced_and_small(images):
    assert images.train_x.shape == (8000, 28, 28, 1)
    assert images.test_x.shape == (2000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(images.train_y), np.full(10, 800))
    np.testing.assert_array_equal(np.bincount(images.test_y), np.full(10, 200))
    assert len(images.classes) == 10
    assert images.train_mask is None
    assert images.test_mask is None
    assert sum(path.stat().st_size for path in fashion_mnist.BUNDLED.iterdir()) < 5_000_000


def test_no_bundled_image_occurs_twice(images):
    both = np.concatenate([images.train_x, images.test_x])
    assert len({image.tobytes() for image in both}) == 10_000


def test_bundled_labels_are_in_random_order(images):
    first = np.bincount(images.train_y[:1000], minlength=10)
    assert first.min() > 60
    assert first.max() < 140


def test_orientation_by_what_articles_look_like(images):
    """Trousers are a narrow upright pair of legs; the ankle boot points left, its shaft at the upper right."""
    means = {k: images.train_x[images.train_y == k, ..., 0].mean(0) / 255 for k in range(10)}
    trouser = means[images.classes.index("Trouser")]
    assert trouser[14:, :8].max() < 0.1 < 0.5 < trouser[14:, 9:19].mean(0).max()
    assert trouser[20:, 13].mean() < 0.6 * trouser[4:8, 13].mean()
    boot = means[images.classes.index("Ankle boot")]
    assert boot[4:10, 14:].mean() > 3 * boot[4:10, :10].mean()
    assert boot[18:24, :8].mean() > 0.3


@pytest.mark.parametrize("damage", ["flip", "cut", "other", "gone"])
def test_damaged_bundle_is_refused(tmp_path, monkeypatch, damage):
    folder = tmp_path / "fashion_mnist"
    shutil.copytree(fashion_mnist.BUNDLED, folder)
    path = folder / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flip":
        content[len(content) // 2] ^= 0xFF
    elif damage == "cut":
        content = content[:1000]
    elif damage == "other":
        labels = bytearray(gzip.decompress(content))
        labels[-1] = (labels[-1] + 1) % 10
        content = gzip.compress(labels)
    if damage != "gone":
        path.write_bytes(content)
    monkeypatch.setattr(fashion_mnist, "BUNDLED", folder)
    error = FileNotFoundError if damage == "gone" else ValueError
    with pytest.raises(error, match=r"(?s)train-labels-idx1-ubyte.*; install the package again"):
        datasets.load("fashion_mnist")


def test_sources_record_the_files():
    sources = (fashion_mnist.BUNDLED.parent / "SOURCES.md").read_text()
    for stem in idx_folders.STEMS:
        content = gzip.decompress((fashion_mnist.BUNDLED / f"{stem}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == fashion_mnist.BUNDLED_SHA256[stem]
        assert fashion_mnist.BUNDLED_SHA256[stem] in sources
        assert fashion_mnist.FASHION_MNIST.sha256[stem] in sources
    licence = (fashion_mnist.BUNDLED / "LICENSE").read_text()
    assert "MIT License" in licence
    assert "Zalando SE" in licence


def test_full_set_prefers_the_users_folder_then_debians(tmp_path, monkeypatch):
    own, debian = draw_arrays(1), draw_arrays(2)
    write_set(tmp_path / "own", own)
    write_set(tmp_path / "debian", debian)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    for folder, arrays in ((tmp_path / "own", own), (str(tmp_path / "own"), own), (None, debian)):
        images = datasets.load("fashion_mnist_full", folder=folder)
        np.testing.assert_array_equal(images.train_x[..., 0], arrays["train-images-idx3-ubyte"])
        assert images.classes == fashion_mnist.FASHION_MNIST.classes
    asked = []
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(idx_folders, "download_files", lambda idx_set: asked.append(idx_set) or tmp_path / "own")
    datasets.load("fashion_mnist_full")
    assert asked == [fashion_mnist.FASHION_MNIST]


def test_balanced_choice():
    labels = np.random.default_rng(0).integers(3, size=200)
    chosen = fashion_mnist.choose_balanced(labels, per_class=20, seed=5)
    assert len(set(chosen.tolist())) == 60
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [20, 20, 20])
    np.testing.assert_array_equal(chosen, fashion_mnist.choose_balanced(labels, per_class=20, seed=5))
    assert (chosen != fashion_mnist.choose_balanced(labels, per_class=20, seed=6)).any()
    with pytest.raises(ValueError, match="class 1 has 2 examples, fewer than 3"):
        fashion_mnist.choose_balanced(np.array([0, 0, 0, 1, 1]), per_class=3, seed=0)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The build script, made to expect a small set; only in a source tree."""
    module = pytest.importorskip("build_datasets")
    arrays = draw_arrays()
    write_set(tmp_path / "raw", arrays)
    digests = {stem: hashlib.sha256(idx_bytes(array)).hexdigest() for stem, array in arrays.items()}
    monkeypatch.setattr(fashion_mnist, "RAW_SHA256", digests)
    monkeypatch.setattr(fashion_mnist, "TRAIN_PER_CLASS", 2)
    monkeypatch.setattr(fashion_mnist, "TEST_PER_CLASS", 1)

    def run(*argv):
        words = ["--data", "fashion_mnist", "--raw", tmp_path / "raw", "--out", tmp_path / "tree", *argv]
        return module.run([str(word) for word in words])

    return run


def test_script_builds_and_checks(script, tmp_path, capsys):
    assert script() == 0
    built = tmp_path / "tree" / "pags_jax" / "datasets" / "files" / "fashion_mnist"
    images, arrays = idx_folders.read_folder(built, classes=tuple("0123456789")), draw_arrays()
    # All images of the small set, in another order.
    order = [image.tobytes() for image in arrays["train-images-idx3-ubyte"]]
    places = [order.index(image.tobytes()) for image in images.train_x]
    assert sorted(places) == list(range(20))
    assert places != list(range(20))
    np.testing.assert_array_equal(images.train_y, arrays["train-labels-idx1-ubyte"][places])
    assert script("--check") == 0
    assert capsys.readouterr().out.count("identical") == 4
    path = built / "t10k-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content, compresslevel=0))
    assert script("--check") == 0
    assert "the same contents, compressed by another zlib" in capsys.readouterr().out
    for bad, said in ((gzip.compress(content[::-1]), "differs from a rebuild"), (b"\x1f\x8b", "damaged or cut off")):
        path.write_bytes(bad)
        assert script("--check") == 1
        assert said in capsys.readouterr().err
    path.unlink()
    assert script("--check") == 1
    assert "no bundled file" in capsys.readouterr().err


def test_script_refuses_other_raw_files(script, tmp_path, capsys):
    write_set(tmp_path / "raw", draw_arrays(1))
    assert script() == 1
    assert "SHA-256" in capsys.readouterr().err
    (tmp_path / "raw" / "train-images-idx3-ubyte.gz").unlink()
    assert script() == 1
    assert "no file" in capsys.readouterr().err
    assert not (tmp_path / "tree").exists()
