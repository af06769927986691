"""Honour deletion requests on your own table: a fair model that forgets people, with a certificate for each request.

    python -m fmu_jax.deletion.command train --csv people.csv --id id --label income --positive ">50K" --group race \
        --epsilon 1 --delta 1e-5 --store model/
    python -m fmu_jax.deletion.command delete --store model/ --ids ids.txt
    python -m fmu_jax.deletion.command report --store model/
    python -m fmu_jax.deletion.command verify --store model/

The store is a folder that only you can read; ``model.json`` and ``certificates/`` in it are what one hands out. Whoever
reads the rest of it (the secret noise, the people's rows) can undo the guarantee.

Exit status: 0 done; 1 refused or failed, and nothing was changed; 2 no such command line; 3 the deletion is done and in
the ledger, but the certificate or ``model.json`` could not be written yet.
"""

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fmu_jax import Objective
from fmu_jax.datasets.delimited import Layout
from fmu_jax.deletion import exports, people, records, requests, training, verification, words
from fmu_jax.deletion.records import Record
from fmu_jax.deletion.table import Table
from fmu_jax.deletion.training import Noise, Trained
from scripts.fmu.problems import Penalty
from scripts.harness import cli


@dataclass(frozen=True, kw_only=True)
class Train(cli.Base):
    """Train a fair model on a table of people, and keep in a new store what later deletions need."""

    csv: Path
    """The table: CSV, compressed or not, or Parquet (.parquet, .pq)."""
    id: str
    """Column of the identifiers: text or whole numbers, one for each person, exact (007 is not 7)."""
    label: str
    """Column to predict."""
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
    max_categories: cli.Count = 50
    """The most values that a text column may have."""
    min_group_rows: cli.Count = 20
    """Fewest people of a group, where there are more than two groups."""
    small_groups: Literal["error", "merge"] = "error"
    """Groups of fewer people: refuse the table, or put them together as one more group, "other"."""
    test_fraction: cli.Probability = 0.2
    """Share of people held out to measure accuracy and fairness; they too can be deleted."""
    fairness: cli.NonNegative = 1.0
    """Weight of the fairness penalty."""
    penalty: Penalty = "equalized_odds"
    """Which gap between the groups is penalised."""
    l2: cli.Positive = 1e-4
    """Ridge strength per person."""
    epsilon: cli.Positive = 1.0
    """Budget: the largest epsilon that a published model may have; beyond it the model is retrained."""
    delta: cli.Probability = 1e-5
    """Failure probability of the guarantee."""
    sigma: cli.Positive | None = None
    """Standard deviation of the secret noise; by default the power of two for which --planned stays in the budget."""
    planned: cli.Share = 0.01
    """Share of the people whose deletion should fit into the budget before the model is retrained."""
    seed: cli.Seed | None = None
    """For tests: split and noise follow from it, so the noise is only as secret as the seed. Leave it out otherwise."""


@dataclass(frozen=True, kw_only=True)
class Delete(cli.Base):
    """Delete people from the model and from its store: one request, one certificate.

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
    """Retrain in any case, so that no earlier model is kept in the store as the point that steps start from."""


@dataclass(frozen=True, kw_only=True)
class Report(cli.Base):
    """Write a page: how many were deleted, epsilon, accuracy and fairness by group over the requests."""

    store: Path
    """The store."""
    out: Path | None = None
    """Where the page goes, a new file .html; by default report.html in the store. Needed where that is read-only."""


@dataclass(frozen=True, kw_only=True)
class Verify(cli.Base):
    """Recompute everything from the stored rows, and fail where a certificate, the model or the ledger disagrees.

    Writes no file. Exit status: 0 if all agrees, 1 if something does not; each line says what, and what to do.
    """

    store: Path
    """The store."""


def train(config: Train) -> None:
    """Trains, and says what was chosen."""
    if not config.csv.is_file():
        raise FileNotFoundError(f"--csv: there is no file {config.csv}")
    fields = {field.name for field in dataclasses.fields(config)}
    source = Table(
        config.csv,
        default_na=not config.no_default_na,
        layout=Layout(config.sep, config.decimal, config.thousands, config.encoding),
        **{name: getattr(config, name) for name in Table._fields if name in fields},
    )
    objective = Objective(l2=config.l2, fairness=config.fairness, penalty=config.penalty)
    noise = Noise(config.epsilon, config.delta, config.sigma, config.planned)
    with words.outcome("no store was made", OSError):
        done = training.train(config.store, source, objective, noise, seed=config.seed)
    with _shown_or_not(f"the store {config.store} is made"):
        show_training(config, done)


def show_training(config: Train, done: Trained) -> None:
    """Prints what training has to tell."""
    settings = done.settings
    print(f"people: {settings.train_rows} to train on, {settings.test_rows} held out, {done.dropped_people} left out")
    for what, name, values in (
        ("label", settings.label_name, settings.label_values),
        ("group", settings.group_name, settings.group_values),
    ):
        print(f"{what} {name}: {', '.join(f'{code} = {value}' for code, value in enumerate(values))}")
    print(f"features: {len(settings.feature_names)}")
    print(f"noise: sigma = {settings.sigma:g} ({'chosen' if config.sigma is None else 'given'})")
    print(
        f"planned: deleting {done.planned_people} people at random leaves a residual of at most "
        f"{done.planned_residual:.2g}, which costs epsilon {done.planned_epsilon:.2g} of {settings.budget:g}"
    )
    print(f"accuracy on the held-out people: {done.accuracy:.4f} ({done.accuracy_without_noise:.4f} without the noise)")
    print(f"store: {config.store} (readable by you only; publish nothing of it but model.json and certificates)")
    print(f"note: {config.csv} and its copies still hold everybody; delete people there too")
    print("note: encoding and scaling of the features were computed with everybody and stay; train anew to renew them")


def delete(config: Delete) -> None:
    """Deletes, and says what it cost."""
    with words.outcome("nobody was deleted", OSError, ValueError):
        ids = people.read_ids(config.ids, config.encoding)
    try:
        record = requests.delete(config.store, ids, ignore_missing=config.ignore_missing, refresh=config.refresh)
    except requests.UnwrittenError:
        if config.traceback:
            traceback.print_exc()
        raise
    with _shown_or_not(f"request {record.number} is done and in the ledger; do not send it again"):
        show_request(config.store, record)


@contextlib.contextmanager
def _shown_or_not(done: str) -> Iterator[None]:
    """What is done stays done where the terminal, or the file that the output goes to, takes no more."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # So that Python does not try once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise requests.UnwrittenError(f"{done}, but this could not be shown ({error}) (exit status 3)") from error


def show_request(store: Path, record: Record) -> None:
    """Prints what a certificate says."""
    content = records.parse(record)
    deleted, remaining, after = content["deleted"], content["remaining"], content["after"]
    ignored = {what.replace("_", " "): count for what, count in content["ignored"].items() if count}
    print(f"request {content['number']}: {deleted['train']} training and {deleted['test']} held-out people deleted")
    if ignored:
        print("passed over: " + ", ".join(f"{count} {what}" for what, count in ignored.items()))
    print(f"left: {remaining['train']} training and {remaining['test']} held-out people")
    print(f"model: {content['method']}")
    print(
        f"epsilon: {content['epsilon']:g} of {content['epsilon_budget']:g} (delta {content['delta']:g}), residual at "
        f"most {content['residual_bound']:g}"
    )
    print(f"accuracy {_shown(after['accuracy'])}, odds gap {_shown(after['equalized_odds_mean'])} on held-out people")
    print(f"certificate: {store / exports.CERTIFICATES / exports.certificate_name(record.number)}")
    print("note: your own table, logs and backups still hold these people; delete them there too")


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def report(config: Report) -> None:
    """Writes the page."""
    from fmu_jax.deletion import page  # Here, so that a deletion does not wait for matplotlib.

    with words.outcome("no report was written", OSError):
        path = page.write(config.store, config.out)
    print(f"report: {path}")


def verify(config: Verify) -> None:
    """Checks everything.

    Raises:
      ValueError: something disagrees.
    """
    failed = 0
    for name, found in verification.verify(config.store):
        failed += not found.agrees
        print(f"{'ok  ' if found.agrees else 'FAIL'} {name}: {found.detail}")
    if failed:
        raise ValueError(
            f"{failed} checks failed: {config.store} is damaged, was changed by hand, or has files yet to be written; "
            "the lines above say which, and nothing was changed now"
        )


COMMANDS = {"train": (Train, train), "delete": (Delete, delete), "report": (Report, report), "verify": (Verify, verify)}
# The flag of each argument that a message of the library may name.
FLAGS = {field.name: f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Train)}
FLAGS |= {"path": "--csv", "budget": "--epsilon", "default_na": "--no-default-na", "seed": "draw"}
UNWRITTEN = 3
"""Exit status of a request that is done, and must not be repeated, though not all its files could be written."""
DESCRIPTION = "A fair model that forgets people on request, with a certificate for each request."


def _in_flags(command: Callable[[Any], None]) -> Callable[[Any], None]:
    """The command, whose errors name flags."""

    def run(config: Any) -> None:
        try:
            command(config)
        except (ValueError, OSError) as error:
            paths = [str(value) for value in vars(config).values() if isinstance(value, Path)]
            said = words.in_flags(str(error), FLAGS, verbatim=paths)
            raise (ValueError if isinstance(error, ValueError) else OSError)(said) from error

    return run


def main(argv: list[str] | None = None) -> int:
    """Runs the command that the first word names.

    Returns:
      The exit status: as ``cli.run_command``, and `UNWRITTEN` after a request that is done but whose files are not
      all written.
    """
    commands = {name: (config_type, _in_flags(command)) for name, (config_type, command) in COMMANDS.items()}
    try:
        return cli.run_command(commands, description=DESCRIPTION, argv=argv)
    except requests.UnwrittenError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNWRITTEN


if __name__ == "__main__":
    sys.exit(main())
