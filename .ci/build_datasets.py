"""Rebuild the bundled data sets of ``fmu_jax.datasets`` and ``pags_jax.datasets`` from the raw files.

    python .ci/build_datasets.py --check            # download, rebuild, compare with the bundled files
    python .ci/build_datasets.py --raw FOLDER       # from raw files in one folder
    python .ci/build_datasets.py --data fashion_mnist --raw /usr/share/datasets/fashion-mnist   # Debian's package

Takes about 10 s after the downloads (40 MB). It ends with a line for each of the six files, with its SHA-256.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from fmu_jax.datasets import raw
from fmu_jax.deletion import cli, files
from pags_jax.datasets import fashion_mnist, reading

ROOT = Path(__file__).resolve().parents[1]
TABLES = Path("fmu_jax/datasets/files")
FASHION_MNIST = Path("pags_jax/datasets/files/fashion_mnist")

Name = Literal["compas", "adult", "fashion_mnist"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Base):
    """Rebuild the bundled files of COMPAS, Adult and Fashion-MNIST from the raw files."""

    out: Path = ROOT
    """Source tree in which the bundled files lie."""
    data: tuple[Name, ...] = get_args(Name)
    """Which data sets to rebuild."""
    raw: Path | None = None
    """Folder of the raw files; by default they are downloaded from their official addresses."""
    check: bool = False
    """Write nothing; fail unless the bundled files equal what a rebuild gives."""


def contents(packed: bytes) -> bytes:
    """What a file built here holds after decompression."""
    return reading.gunzip(packed, source="the rebuilt file")


def compare(path: Path, packed: bytes) -> str:
    """Say whether a bundled file agrees with a rebuild.

    Raises:
      ValueError: The contents differ or are damaged, or there is no such file.
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
        images = name == "fashion_mnist"
        made = fashion_mnist.build_subset(config.raw) if images else raw.build(name, config.raw)
        built |= {(FASHION_MNIST if images else TABLES) / file: packed for file, packed in made.items()}
    for place, packed in built.items():
        path = config.out / place
        if config.check:
            outcome = compare(path, packed)
        else:
            files.write_bytes(path, packed)
            outcome = "written"
        digests = [hashlib.sha256(content).hexdigest() for content in (packed, contents(packed))]
        print(f"{place}: {len(packed)} bytes, SHA-256 {digests[0]}, of the contents {digests[1]}: {outcome}")


def run(argv: Sequence[str] | None = None) -> int:
    """The program; see `cli.run_command`."""
    return cli.run_command({"datasets": (Config, main)}, description=__doc__ or "", argv=argv)


if __name__ == "__main__":
    sys.exit(run())
