"""The flags of ``fmu-delete``: a dataclass for each command; its docstrings are the help. Nothing here imports JAX."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fmu_jax.deletion import cli, ranges
from fmu_jax.penalty_forms import PenaltyName


@dataclass(frozen=True, kw_only=True)
class Base(cli.Base):
    """Flags that every command has."""

    no_compilation_cache: bool = False
    """Compile all programs anew, and neither read nor write your cache folder. That folder is
    $JAX_COMPILATION_CACHE_DIR, or else fmu-pags-jax in $XDG_CACHE_HOME or ~/.cache."""


@dataclass(frozen=True, kw_only=True)
class Train(Base):
    """Train a fair model on a table of people, and keep in a new store what later deletions need."""

    csv: Path
    """File of the table: CSV, compressed or not, or Parquet (.parquet, .pq)."""
    id: str
    """Column of the identifiers, one for each person: text or whole numbers, compared exactly (007 is not 7)."""
    label: str
    """Column to predict. It has two values, unless --positive says which values count as 1."""
    group: tuple[str, ...]
    """Column of the protected attribute; each of its values is a group. If you name several columns, each combination
    of their values that occurs is a group. These columns stay features."""
    store: Path
    """Folder of the new store; nothing is overwritten."""
    positive: tuple[str, ...] = ()
    """Label values that count as 1. A label of two values does not need them: then the larger value is 1."""
    group_one: tuple[str, ...] = ()
    """Values that make up group 1, while all others make up group 0; only with a single --group."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    missing: Literal["error", "drop"] = "error"
    """What to do about people with a missing value: error refuses the table; drop leaves these people out, and the
    store then knows only that they were left out."""
    na_values: tuple[str, ...] = ()
    """Text that stands for a missing value, such as "?", or for a missing number, such as -999."""
    no_default_na: bool = False
    """Treat the words NA, N/A, None, null, nan and the like as text, not as missing values."""
    categorical: tuple[str, ...] = ()
    """Columns that hold categories: each value is one, exactly as it is written, even if it is a number."""
    sep: str = ","
    """Character that separates the fields of a CSV file, such as ";" or a tab, which may be written \\t."""
    decimal: str = "."
    """Decimal mark of a CSV file."""
    thousands: str | None = None
    """Character that separates groups of three digits in a CSV file, if there is one."""
    encoding: str = "utf-8"
    """Text encoding of a CSV file, such as cp1252 or utf-16."""
    scaling: Literal["standardise", "minmax", "maxnorm"] = "standardise"
    """How features are scaled, before all rows are divided by the largest norm of a training row."""
    max_categories: ranges.Count = 50
    """Largest number of different values that a text column may have."""
    min_group_rows: ranges.Count = 20
    """Smallest number of people in a group, if there are more than two groups."""
    small_groups: Literal["error", "merge"] = "error"
    """What to do about smaller groups: error refuses the table; merge puts them together as one more group, "other"."""
    test_fraction: ranges.Probability = 0.2
    """Share of the people who are held out to measure accuracy and fairness; they can be deleted, too."""
    fairness: ranges.NonNegative = 1.0
    """Weight of the fairness penalty."""
    penalty: PenaltyName = "equalized_odds"
    """Which gap between the groups is penalised."""
    l2: ranges.Positive = 1e-4
    """Ridge strength per person. A larger one brings unlearning nearer to retraining, so that less noise is needed."""
    epsilon: ranges.Positive | None = None
    """Largest epsilon of all planned releases together, at --delta; 1 if you give neither this nor --mu."""
    mu: ranges.Positive | None = None
    """The same limit as a parameter of Gaussian differential privacy, instead of --epsilon."""
    delta: ranges.Probability = 1e-5
    """Failure probability of the guarantee; every epsilon is stated for this delta."""
    releases: ranges.Count = 100
    """Number of requests that may be served by unlearning. Each publishes a model, and a larger number needs more
    noise. Later requests retrain the model, at no further cost of the guarantee."""
    planned: ranges.Share = 0.01
    """Share of the people whose deletion an unlearned model withstands before it is retrained; it sets the distance to
    the retrained model that the noise must hide."""
    admitted: ranges.Positive | None = None
    """That distance itself, instead of --planned. A smaller one needs less noise and leads to more retraining."""
    seed: ranges.Seed | None = None
    """Seed that decides who is held out; it never decides the noise of releases. By default it is drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Delete(Base):
    """Delete people from the model and from its store: one request, one published model, one certificate.

    Exit status 0 means that the request is done; 1 that it was refused and nobody was deleted; 3 that it is done and in
    the ledger, but that the certificate or model.json could not be written. In the last case do not repeat the request:
    the command report writes these files.
    """

    store: Path
    """Folder of the store."""
    ids: Path
    """Text file of the identifiers of the people to delete, one in each line."""
    encoding: str = "utf-8"
    """Text encoding of that file."""
    ignore_missing: bool = False
    """Skip unknown, repeated and already deleted ids, instead of refusing the request."""
    refresh: bool = False
    """Retrain even if unlearning would suffice, so that nothing in the store was computed from the deleted people."""


@dataclass(frozen=True, kw_only=True)
class Report(Base):
    """Write a page for people: what was deleted, what is guaranteed, and accuracy and fairness over the requests.

    It is drawn from the certificates alone, so it may be handed out with them.
    """

    store: Path
    """Folder of the store."""
    out: Path | None = None
    """New file .html for the page; by default report.html in the store. A read-only store needs this flag."""


@dataclass(frozen=True, kw_only=True)
class Verify(Base):
    """Recompute everything from the stored rows, and fail if a certificate, the model or the ledger disagrees.

    The command writes no file. Exit status 0 means that all checks agree, 1 that one does not. Each line of the output
    names a check, what it found, and what to do.
    """

    store: Path
    """Folder of the store."""


# The flag of each argument that a message of the library may name.
FLAGS = {
    field.name: f"--{field.name.replace('_', '-')}"
    for config_type in (Train, Delete, Report)
    for field in dataclasses.fields(config_type)
}
FLAGS |= {"path": "--csv", "default_na": "--no-default-na", "seed": "draw"}
