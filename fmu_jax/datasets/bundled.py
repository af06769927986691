"""The data sets that ship with the package: packing, checked reading, and preparation as in the paper's code."""

import dataclasses
import gzip
import hashlib
import importlib.resources
import io
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from fmu_jax.datasets.grouping import MIN_GROUP_ROWS, attributes_of, intersect, settle_small
from fmu_jax.datasets.reading import listed
from fmu_jax.datasets.split import Split, make_split

FILES = importlib.resources.files("fmu_jax.datasets") / "files"
"""Folder of the bundled files; `SOURCES.md` in it says where each comes from."""


@dataclasses.dataclass(frozen=True)
class Bundled:
    """One bundled data set.

    Attributes:
      name: The data set's name; its file is ``{name}.csv.gz``.
      sha256: SHA-256 of the CSV text in that file.
      features: Function from the clean table to its feature table (float64 columns).
      label: Column of the label; label_values: its two values, of which the second is 1.
      groups: For each protected attribute (a column) its two values, of which the second is 1.
      scaling: The scaling that the paper's code uses for it.
    """

    name: str
    sha256: str
    features: Callable[[pd.DataFrame], pd.DataFrame]
    label: str
    label_values: tuple[str, str]
    groups: Mapping[str, tuple[str, str]]
    scaling: str


def pack(table: pd.DataFrame) -> bytes:
    """Compresses a table to the bytes of a .csv.gz file that depend on the table alone (no time, no file name)."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(table.to_csv(index=False, lineterminator="\n").encode())
    return out.getvalue()


def text_sha256(packed: bytes) -> str:
    """SHA-256 (hex) of the CSV text in a packed table.

    The text, not the compressed bytes: those depend on the zlib that wrote them.
    """
    return hashlib.sha256(gzip.decompress(packed)).hexdigest()


def read_bundled(bundled: Bundled) -> pd.DataFrame:
    """Reads a bundled table.

    Raises:
      FileNotFoundError: The file is missing.
      ValueError: It is damaged: its contents do not have the recorded SHA-256.
    """
    file = FILES / f"{bundled.name}.csv.gz"
    fix = "install the package again, or rebuild the file with `python .ci/build_datasets.py` in the source tree"
    try:
        packed = file.read_bytes()
        found = text_sha256(packed)
    except FileNotFoundError:
        raise FileNotFoundError(f"the bundled file {file} is missing; {fix}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"the bundled file {file} is corrupted ({error}); {fix}") from error
    if found != bundled.sha256:
        raise ValueError(f"the bundled file {file} is corrupted: SHA-256 {found}, expected {bundled.sha256}; {fix}")
    return pd.read_csv(io.BytesIO(gzip.decompress(packed)), keep_default_na=False)


def two_valued(column: pd.Series, values: tuple[str, str]) -> np.ndarray:
    """Codes a column of two texts as int32 0 (the first) and 1 (the second)."""
    return (column == values[1]).to_numpy().astype(np.int32)


def load_bundled(
    bundled: Bundled,
    *,
    group: str | Sequence[str],
    seed: int,
    test_fraction: float,
    scaling: str | None = None,
    group_feature: bool = True,
    min_group_rows: int = MIN_GROUP_ROWS,
    small_groups: str = "error",
) -> Split:
    """Reads, encodes, splits and scales a bundled data set.

    Args:
      bundled: The data set to read.
      group: The protected attribute, a key of ``bundled.groups``, or several for their intersections.
      seed: Seed of the split.
      test_fraction: Share of test rows.
      scaling: None for the paper's own choice.
      group_feature: Keep the protected attributes as features, as the paper's code does.
      min_group_rows: Fewest rows of a group where there are more than two.
      small_groups: "error" or "merge".

    Returns:
      The ``Split``.

    Raises:
      ValueError: Unknown group or scaling, groups of too few rows, or a damaged file.
    """
    attributes = attributes_of(group)
    for name in attributes:
        if name not in bundled.groups:
            raise ValueError(f"unknown group {name!r} of {bundled.name!r}; available: {listed(bundled.groups)}")
    table = read_bundled(bundled)
    features = bundled.features(table)
    coded = {name: (two_valued(table[name], bundled.groups[name]), bundled.groups[name]) for name in attributes}
    return make_split(
        features if group_feature else features.drop(columns=list(attributes)),
        two_valued(table[bundled.label], bundled.label_values),
        settle_small(intersect(coded), min_rows=min_group_rows, small=small_groups),
        seed=seed,
        test_fraction=test_fraction,
        scaling=scaling or bundled.scaling,
        source=bundled.name,
        label_name=bundled.label,
        label_values=bundled.label_values,
    )
