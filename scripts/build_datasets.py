"""Rebuilds the bundled data sets of ``fmu_jax.datasets`` from the raw files.

    python -m scripts.build_datasets --check            # download, rebuild, compare with the bundled files
    python -m scripts.build_datasets --raw FOLDER       # from adult.data, adult.test, compas-scores-two-years.csv

Takes about 2 s after the downloads (9 MB); ends with 5278 rows of COMPAS and 46447 of Adult.
"""

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pooch

from fmu_jax.datasets import adult, bundled, compas
from scripts.harness import cli, files

FOLDER = Path(__file__).resolve().parents[1] / "fmu_jax" / "datasets" / "files"

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
PROPUBLICA = "https://raw.githubusercontent.com/propublica/compas-analysis/master/"
RAW = {
    "adult.data": (UCI, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
    "adult.test": (UCI, "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
    compas.RAW_FILE: (PROPUBLICA, "c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d"),
}
"""Each raw file's official address and SHA-256."""


@dataclasses.dataclass(frozen=True)
class Config(cli.Common):
    """Rebuild the bundled files of COMPAS and Adult from the raw files."""

    PRESETS: ClassVar = {}

    out: Path = FOLDER
    """Folder of the bundled files."""
    raw: Path | None = None
    """Folder that holds the raw files; without it they are downloaded from their official addresses."""
    check: bool = False
    """Write nothing; fail unless the bundled files equal what a rebuild gives."""


def raw_file(name: str, folder: Path | None) -> Path:
    """Finds a raw file in a folder, or downloads it to pooch's cache, and checks it.

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
        raise ValueError(f"no file {path}; get it from {address + name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path} has SHA-256 {found}, expected {expected}; get it from {address + name}")
    return path


def build(folder: Path | None) -> dict[str, pd.DataFrame]:
    """Cleans the raw files; returns each data set's table."""
    paths = {name: raw_file(name, folder) for name in RAW}
    return {
        "compas": compas.clean(compas.read_raw(paths[compas.RAW_FILE])),
        "adult": adult.clean(*(adult.read_raw(paths[name]) for name in adult.RAW_FILES)),
    }


def compare(path: Path, packed: bytes) -> str:
    """Says how a bundled file agrees with a rebuild.

    Raises:
      ValueError: the rows differ, or there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"no bundled file {path}; run without --check to write it")
    if path.read_bytes() == packed:
        return "identical"
    if bundled.text_sha256(path.read_bytes()) == bundled.text_sha256(packed):
        return "the same rows, compressed by another zlib"
    raise ValueError(f"{path} differs from a rebuild")


def main(config: Config) -> None:
    """Builds, then compares or writes."""
    for name, table in build(config.raw).items():
        packed = bundled.pack(table)
        path = config.out / f"{name}.csv.gz"
        if config.check:
            outcome = compare(path, packed)
        else:
            files.write_bytes(path, packed)
            outcome = f"written, SHA-256 of the text {bundled.text_sha256(packed)}"
        digest = hashlib.sha256(packed).hexdigest()
        print(f"{path.name}: {len(table)} rows, {len(packed)} bytes, SHA-256 {digest}: {outcome}")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=lambda config: [f"{name}.csv.gz" for name in ("compas", "adult")]))
