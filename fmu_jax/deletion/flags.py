"""The flags of ``fmu-delete``: one dataclass a command, whose docstrings are its help. Nothing here imports JAX."""

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
    """Compile anew, in place of taking compiled programs from your cache folder and leaving them there. The folder is
    $JAX_COMPILATION_CACHE_DIR, else fmu-pags-jax in $XDG_CACHE_HOME or ~/.cache."""


@dataclass(frozen=True, kw_only=True)
class Train(Base):
    """Train a fair model on a table of people, and keep in a new store what later deletions need."""

    csv: Path
    """The table: CSV, compressed or not, or Parquet (.parquet, .pq)."""
    id: str
    """Column of the identifiers: text or whole numbers, one for each person, exact (007 is not 7)."""
    label: str
    """Column to predict; of two values, unless --positive says which count as 1."""
    group: tuple[str, ...]
    """Column of the protected attribute, each of whose values is a group; of several columns, each combination of their
    values that occurs. They stay features."""
    store: Path
    """Folder of the new store; nothing is overwritten."""
    positive: tuple[str, ...] = ()
    """Label values that count as 1; not needed where the label has two values (then the larger is 1)."""
    group_one: tuple[str, ...] = ()
    """Group values that make up group 1, all others being group 0; for a single --group."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    missing: Literal["error", "drop"] = "error"
    """People with a missing value: refuse the table, or leave them out; the store then knows only that they were."""
    na_values: tuple[str, ...] = ()
    """Text that stands for a missing value, such as "?", or for a missing number, such as -999."""
    no_default_na: bool = False
    """Take the words NA, N/A, None, null, nan and the like for text, not for missing values."""
    categorical: tuple[str, ...] = ()
    """Columns each of whose values is a category, exactly as it stands, also if it is a number."""
    sep: str = ","
    """What separates the fields of a CSV file, such as ";" or a tab, which may be written \\t."""
    decimal: str = "."
    """The decimal mark of a CSV file."""
    thousands: str | None = None
    """What separates groups of three digits in a CSV file, if anything does."""
    encoding: str = "utf-8"
    """The text encoding of a CSV file, such as cp1252 or utf-16."""
    scaling: Literal["standardise", "minmax", "maxnorm"] = "standardise"
    """How features are scaled, before rows are brought to norm 1."""
    max_categories: ranges.Count = 50
    """The most values that a text column may have."""
    min_group_rows: ranges.Count = 20
    """Fewest people of a group, where there are more than two groups."""
    small_groups: Literal["error", "merge"] = "error"
    """Groups of fewer people: refuse the table, or put them together as one more group, "other"."""
    test_fraction: ranges.Probability = 0.2
    """Share of people held out to measure accuracy and fairness; they too can be deleted."""
    fairness: ranges.NonNegative = 1.0
    """Weight of the fairness penalty."""
    penalty: PenaltyName = "equalized_odds"
    """Which gap between the groups is penalised."""
    l2: ranges.Positive = 1e-4
    """Ridge strength per person. A larger one keeps unlearning nearer to retraining, so that less noise is needed."""
    epsilon: ranges.Positive | None = None
    """What the planned series of releases may cost together, at --delta; 1 if neither this nor --mu is given."""
    mu: ranges.Positive | None = None
    """The same as a parameter of Gaussian differential privacy, in place of --epsilon."""
    delta: ranges.Probability = 1e-5
    """Failure probability of the guarantee, at which every epsilon is given."""
    releases: ranges.Count = 100
    """How many requests may be served by unlearning. Each publishes a model; more of them need more noise. Later
    requests retrain the model, at no further cost of the guarantee."""
    planned: ranges.Share = 0.01
    """Share of the people whose deletion an unlearned model withstands before it is retrained; it sets the distance to
    the retrained model that the noise must hide."""
    admitted: ranges.Positive | None = None
    """That distance itself, in place of --planned: the smaller, the less noise and the more retraining."""
    seed: ranges.Seed | None = None
    """Who is held out follows from it; the noise of releases never does. By default it is drawn."""


@dataclass(frozen=True, kw_only=True)
class Delete(Base):
    """Delete people from the model and from its store: one request, one published model, one certificate.

    Exit status: 0 if done; 1 if refused, nobody was deleted; 3 if done and in the ledger, but the certificate or
    model.json could not be written: do not repeat the request, report writes them.
    """

    store: Path
    """The store."""
    ids: Path
    """Text file of their identifiers, one a line."""
    encoding: str = "utf-8"
    """The encoding of that file."""
    ignore_missing: bool = False
    """Pass over unknown, repeated and already deleted ids in place of refusing all."""
    refresh: bool = False
    """Retrain even where unlearning would do, so that nothing in the store was computed from the deleted people."""


@dataclass(frozen=True, kw_only=True)
class Report(Base):
    """Write a page for people: what was deleted, what is guaranteed, and accuracy and fairness over the requests.

    It is drawn from the certificates alone, so it may be handed out with them.
    """

    store: Path
    """The store."""
    out: Path | None = None
    """Where the page goes, a new file .html; by default report.html in the store. Needed where that is read-only."""


@dataclass(frozen=True, kw_only=True)
class Verify(Base):
    """Recompute everything from the stored rows, and fail where a certificate, the model or the ledger disagrees.

    Writes no file. Exit status: 0 if all agrees, 1 if something does not; each line says what, and what to do.
    """

    store: Path
    """The store."""


# The flag of each argument that a message of the library may name.
FLAGS = {
    field.name: f"--{field.name.replace('_', '-')}"
    for config_type in (Train, Delete, Report)
    for field in dataclasses.fields(config_type)
}
FLAGS |= {"path": "--csv", "default_na": "--no-default-na", "seed": "draw"}
