"""Rebuild the bundled data sets of ``fmu_jax.datasets`` and ``pags_jax.datasets`` from the raw files.

    python -m scripts.build_datasets --check            # download, rebuild, compare with the bundled files
    python -m scripts.build_datasets --raw FOLDER       # from raw files in one folder
    python -m scripts.build_datasets --data fashion_mnist --raw /usr/share/datasets/fashion-mnist   # Debian's package

Takes about 10 s after the downloads (40 MB); ends with a line a file, each with its SHA-256 (six files).
"""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal, get_args

import pooch

from fmu_jax.datasets import adult, bundled, compas
from fmu_jax.deletion import files
from pags_jax.datasets import fashion_mnist, idx_folders, reading
from scripts.harness import cli

ROOT = Path(__file__).resolve().parents[1]
TABLES = Path("fmu_jax/datasets/files")
FASHION_MNIST = Path("pags_jax/datasets/files/fashion_mnist")

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
PROPUBLICA = "https://raw.githubusercontent.com/propublica/compas-analysis/master/"
RAW = {
    "adult.data": (UCI, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
    "adult.test": (UCI, "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
    compas.RAW_FILE: (PROPUBLICA, "c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d"),
}
"""Each raw table's official address and SHA-256."""
RAW_IMAGES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of Fashion-MNIST's files after decompression: copies differ in how they are compressed."""

Name = Literal["compas", "adult", "fashion_mnist"]


@dataclasses.dataclass(frozen=True)
class Config(cli.Common):
    """Rebuild the bundled files of COMPAS, Adult and Fashion-MNIST from the raw files."""

    PRESETS: ClassVar = {}

    out: Path = ROOT
    """Source tree in which the bundled files lie."""
    data: tuple[Name, ...] = get_args(Name)
    """Which data sets to rebuild."""
    raw: Path | None = None
    """Folder that holds the raw files; without it they are downloaded from their official addresses."""
    check: bool = False
    """Write nothing; fail unless the bundled files equal what a rebuild gives."""


def raw_file(name: str, folder: Path | None) -> Path:
    """Find a raw table in a folder, or downloads it to pooch's cache, and check it.

    Raises:
        ValueError: it is not there, cannot be downloaded, or has another SHA-256.
    """
    address, expected = RAW[name]
    if folder is None:
        try:
            return Path(pooch.retrieve(address + name, known_hash=f"sha256:{expected}", fname=f"fmu-jax-{name}"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cannot download {address + name}: {error}; download it by hand and pass --raw"
            ) from error
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; get it from {address + name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path} has SHA-256 {found}, expected {expected}; get it from {address + name}")
    return path


def build_compas(folder: Path | None) -> dict[Path, bytes]:
    """Clean COMPAS."""
    table = compas.clean(compas.read_raw(raw_file(compas.RAW_FILE, folder)))
    return {TABLES / "compas.csv.gz": bundled.pack(table)}


def build_adult(folder: Path | None) -> dict[Path, bytes]:
    """Clean Adult."""
    table = adult.clean(*(adult.read_raw(raw_file(name, folder)) for name in adult.RAW_FILES))
    return {TABLES / "adult.csv.gz": bundled.pack(table)}


def build_fashion_mnist(folder: Path | None) -> dict[Path, bytes]:
    """Choose the subset of Fashion-MNIST.

    Raises:
      FileNotFoundError: a raw file is missing.
      ValueError: one is damaged, or its contents have another SHA-256.
    """
    published = fashion_mnist.FASHION_MNIST
    folder = idx_folders.download_files(published) if folder is None else folder
    images = idx_folders.read_folder(folder, classes=published.classes, content_sha256=RAW_IMAGES)
    return {FASHION_MNIST / name: content for name, content in fashion_mnist.pack_subset(images).items()}


BUILDERS: Mapping[Name, Callable[[Path | None], dict[Path, bytes]]] = {
    "compas": build_compas,
    "adult": build_adult,
    "fashion_mnist": build_fashion_mnist,
}


def contents(packed: bytes) -> bytes:
    """What a file built here holds after decompression."""
    return reading.gunzip(packed, source="the rebuilt file")


def compare(path: Path, packed: bytes) -> str:
    """Say how a bundled file agrees with a rebuild.

    Raises:
      ValueError: the contents differ or are damaged, or there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"no bundled file {path}; run without --check to write it")
    if path.read_bytes() == packed:
        return "identical"
    if reading.gunzip(path.read_bytes(), source=str(path)) == contents(packed):
        return "the same contents, compressed by another zlib"
    raise ValueError(f"{path} differs from a rebuild")


def main(config: Config) -> None:
    """Build everything, then compare or write."""
    built = {}
    for name in config.data:
        built |= BUILDERS[name](config.raw)
    for place, packed in built.items():
        path = config.out / place
        if config.check:
            outcome = compare(path, packed)
        else:
            files.write_bytes(path, packed)
            outcome = "written"
        digests = [hashlib.sha256(content).hexdigest() for content in (packed, contents(packed))]
        print(f"{place}: {len(packed)} bytes, SHA-256 {digests[0]}, of the contents {digests[1]}: {outcome}")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=lambda config: list(config.data)))
