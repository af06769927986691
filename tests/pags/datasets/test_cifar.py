"""CIFAR-10 and -100 in small fake sets of the binary layout, written here pixel by pixel, in folders and archives."""

import dataclasses
import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pags_jax import datasets
from pags_jax.datasets import cifar, reading, registry

SMALL10 = dataclasses.replace(cifar.CIFAR10, train_records=4, test_records=3)
SMALL100 = dataclasses.replace(cifar.CIFAR100, train_records=5, test_records=2)


def record(labels, image):
    """One record: labels, then each colour's rows."""
    out = bytearray(labels)
    for channel in range(3):
        for row in range(32):
            out += bytes(image[row, column, channel] for column in range(32))
    return bytes(out)


def draw_images(seed, n):
    return np.random.default_rng(seed).integers(256, size=(n, 32, 32, 3), dtype=np.uint8)


def files10():
    """CIFAR-10's files, and what they hold."""
    x, y = draw_images(0, 23), np.arange(23) % 10
    records = [record([label], image) for label, image in zip(y, x, strict=True)]
    files = {f"data_batch_{k + 1}.bin": b"".join(records[4 * k : 4 * k + 4]) for k in range(5)}
    names = "\n".join(f"name{k}" for k in range(10)) + "\n\n"
    return files | {"test_batch.bin": b"".join(records[20:]), "batches.meta.txt": names.encode()}, x, y


def files100():
    x, fine = draw_images(1, 7), np.array([0, 99, 5, 42, 7, 1, 98])
    coarse = fine % 20
    records = [record(pair, image) for *pair, image in zip(coarse, fine, x, strict=True)]
    return (
        {
            "train.bin": b"".join(records[:5]),
            "test.bin": b"".join(records[5:]),
            "coarse_label_names.txt": "\n".join(f"c{k}" for k in range(20)).encode(),
            "fine_label_names.txt": "\r\n".join(f"f{k}" for k in range(100)).encode(),
        },
        x,
        coarse,
        fine,
    )


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def pack(path, files, prefix=""):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def small(monkeypatch):
    """``load`` with the small layouts."""
    loaders = dict(registry._LOADERS)
    for name, layout in (("cifar10", SMALL10), ("cifar100", SMALL100)):
        loaders[name] = lambda folder, layout=layout, labels="class": cifar.load_cifar(layout, folder, labels=labels)
    monkeypatch.setattr(registry, "_LOADERS", loaders)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin", "archive", "dotted archive"])
def test_cifar10(tmp_path, small, place):
    files, x, y = files10()
    if "archive" in place:
        prefix = "./cifar-10-batches-bin/" if "dotted" in place else "cifar-10-batches-bin/"
        pack(tmp_path / "cifar-10-binary.tar.gz", files | {"readme.html": b"hello"}, prefix)
    else:
        write(tmp_path / place, files)
    images = datasets.load("cifar10", folder=tmp_path)
    np.testing.assert_array_equal(images.train_x, x[:20])
    np.testing.assert_array_equal(images.train_y, y[:20])
    np.testing.assert_array_equal(images.test_x, x[20:])
    np.testing.assert_array_equal(images.test_y, y[20:])
    assert images.classes == tuple(f"name{k}" for k in range(10))
    assert images.train_x.dtype == np.uint8
    assert images.train_y.dtype == images.test_y.dtype == np.int32


@pytest.mark.parametrize("labels", ["fine", "coarse", None])
def test_cifar100(tmp_path, small, labels):
    files, x, coarse, fine = files100()
    write(tmp_path / "cifar-100-binary", files)
    images = datasets.load("cifar100", folder=str(tmp_path), **({} if labels is None else {"labels": labels}))
    y = coarse if labels == "coarse" else fine
    np.testing.assert_array_equal(images.train_x, x[:5])
    np.testing.assert_array_equal(images.test_x, x[5:])
    np.testing.assert_array_equal(images.train_y, y[:5])
    np.testing.assert_array_equal(images.test_y, y[5:])
    assert images.classes[:2] == (("c0", "c1") if labels == "coarse" else ("f0", "f1"))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_records_round_trip(seed, label_bytes):
    rng = np.random.default_rng(seed)
    x, y = draw_images(seed, 2), rng.integers(20, size=(2, label_bytes))
    content = b"".join(record(labels, image) for labels, image in zip(y.tolist(), x, strict=True))
    images, labels = cifar.decode(content, classes=(20,) * label_bytes, records=2, source="x")
    np.testing.assert_array_equal(images, x)
    np.testing.assert_array_equal(labels, y)


def without(*names):
    return lambda files: {name: content for name, content in files.items() if name not in names}


def changed(name, change):
    return lambda files: files | {name: change(files[name])}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("data_batch_3.bin"), r"no file .*data_batch_3\.bin"),
        (without("batches.meta.txt"), r"no file .*batches\.meta\.txt"),
        (
            changed("data_batch_2.bin", lambda old: old[:-1]),
            r"data_batch_2\.bin has 12291 bytes, expected 12292: 4 records of 3073 bytes",
        ),
        # Cut off between two records: only the number of records tells.
        (changed("data_batch_5.bin", lambda old: old[:3073]), r"data_batch_5\.bin has 3073 bytes, expected 12292"),
        (changed("test_batch.bin", lambda old: old + b"0"), r"test_batch\.bin has 9220 bytes, expected 9219"),
        (changed("test_batch.bin", lambda old: b""), r"test_batch\.bin has 0 bytes"),
        (
            changed("data_batch_1.bin", lambda old: old[:3073] + b"\x0a" + old[3074:]),
            r"data_batch_1\.bin has the label 10 at record 1 .*expected 0 to 9",
        ),
        (changed("batches.meta.txt", lambda old: b"cat\ndog\n"), r"batches\.meta\.txt has 2 class names, expected 10"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_files_are_refused(tmp_path, small, damage, said, packed):
    files = damage(files10()[0])
    if packed:
        pack(tmp_path / "cifar-10-binary.tar.gz", files, "cifar-10-batches-bin/")
        said = said.replace("no file .*", "does not hold the files 'cifar-10-batches-bin/")
    else:
        write(tmp_path, files)
    error = FileNotFoundError if "no file" in said else ValueError
    with pytest.raises(error, match=f"{said}.*; get the binary version from https://www.cs.toronto.edu"):
        datasets.load("cifar10", folder=tmp_path)


def test_the_published_number_of_records_is_asked_for(tmp_path):
    write(tmp_path, files10()[0])
    with pytest.raises(ValueError, match=r"12292 bytes, expected 30730000: 10000 records of 3073 bytes"):
        datasets.load("cifar10", folder=tmp_path)
    write(tmp_path, files100()[0])
    with pytest.raises(ValueError, match=r"train\.bin has 15370 bytes, expected 153700000: 50000 records of 3074"):
        datasets.load("cifar100", folder=tmp_path)


def test_missing_folder_and_damaged_archive_are_refused(tmp_path, small):
    absent = r"no file .*absent/data_batch_1\.bin, nor cifar-10-batches-bin/.* or .*tar"
    with pytest.raises(FileNotFoundError, match=absent):
        datasets.load("cifar10", folder=tmp_path / "absent")
    path = tmp_path / "cifar-10-binary.tar.gz"
    pack(path, files10()[0], "cifar-10-batches-bin/")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"no archive", b"", content[:2000] + b"\0" * 50 + content[2050:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz is damaged or cut off.*; get the binary"):
            datasets.load("cifar10", folder=tmp_path)


def test_archive_writes_nothing_and_follows_no_link(tmp_path, small):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(files10()[0]["test_batch.bin"])
    files = without("test_batch.bin")(files10()[0])
    path = tmp_path / "set" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {**{f"cifar-10-batches-bin/{k}": v for k, v in files.items()}, "../evil": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"does not hold the files 'cifar-10-batches-bin/test_batch\.bin'"):
        datasets.load("cifar10", folder=path.parent)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "outside.bin", "set"]


def test_download_asks_for_the_published_archive(tmp_path, small, monkeypatch):
    files, x, _ = files10()
    asked = []

    def download(address, *, sha256, to):
        asked.append((address, sha256, to))
        pack(tmp_path / "cifar-10-binary.tar.gz", files, "cifar-10-batches-bin/")
        return tmp_path / "cifar-10-binary.tar.gz"

    monkeypatch.setattr(reading, "download", download)
    np.testing.assert_array_equal(datasets.load("cifar10").test_x, x[20:])
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", cifar.CIFAR10.sha256, "cifar10")]


def test_unknown_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown labels='finest' of 'cifar100'; available: 'coarse', 'fine'"):
        datasets.load("cifar100", folder=tmp_path, labels="finest")
