"""The command ``fmu-delete``: honours deletion requests on your own table, with a certificate for each request.

    fmu-delete train --csv people.csv --id id --label income --positive ">50K" --group race --store model/
    fmu-delete delete --store model/ --ids ids.txt
    fmu-delete report --store model/
    fmu-delete verify --store model/

The store is a folder that only you can read. You may hand out ``model.json`` and ``certificates/`` from it; the rest
holds people's rows and the model without noise.

Exit status 0 means that the command succeeded; 1 that it was refused or failed, and nothing was changed; 2 that the
command line is wrong; 3 that the deletion is done and in the ledger, but that the certificate or ``model.json`` could
not be written yet.
"""

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmu_jax.deletion import cli, people, words
from fmu_jax.deletion.flags import FLAGS, Delete, Report, Train, Verify
from fmu_jax.deletion.words import UnwrittenError

if TYPE_CHECKING:
    from fmu_jax.deletion import Receipt, Trained

# What computes is imported where it is used, so that the help does not wait for JAX.


def train(config: Train) -> None:
    """Trains a model, and prints what was chosen."""
    from fmu_jax import Objective, deletion
    from fmu_jax.datasets.delimited import Layout

    if not config.csv.is_file():
        raise FileNotFoundError(f"--csv: there is no file {config.csv}")
    fields = {field.name for field in dataclasses.fields(config)}
    source = deletion.Table(
        config.csv,
        default_na=not config.no_default_na,
        layout=Layout(config.sep, config.decimal, config.thousands, config.encoding),
        **{name: getattr(config, name) for name in deletion.Table._fields if name in fields},
    )
    plan = deletion.Plan(**{name: getattr(config, name) for name in deletion.Plan._fields})
    objective = Objective(l2=config.l2, fairness=config.fairness, penalty=config.penalty)
    with words.outcome("no store was made", OSError):
        done = deletion.train(config.store, source, objective=objective, plan=plan, seed=config.seed)
    with _shown_or_not(f"the store {config.store} is made"):
        show_training(config, done)


def show_training(config: Train, done: "Trained") -> None:
    """Prints the results of a training."""
    from fmu_jax.deletion.guarantee import limit_text

    settings = done.settings
    print(f"people: {settings.train_rows} to train on, {settings.test_rows} held out, {done.dropped_people} left out")
    for what, name, values in (
        ("label", settings.label_name, settings.label_values),
        ("group", settings.group_name, settings.group_values),
    ):
        print(f"{what} {name}: {', '.join(f'{code} = {value}' for code, value in enumerate(values))}")
    print(f"features: {len(settings.feature_names)}")
    print(
        f"accuracy on the held-out people: {done.accuracy:.4f}, trained without noise (with secret noise in the "
        f"training, as in the paper, for one model of the same epsilon: {done.secret_noise_accuracy:.4f})"
    )
    print(
        f"planned: unlearning {done.planned_people} people at random stays within {done.planned_distance:.2g} of "
        f"retraining; a model farther away than the admitted {settings.admitted:.2g} is retrained"
    )
    print(
        f"guarantee: {settings.releases} release{'s' * (settings.releases > 1)} with noise of scale "
        f"{settings.scale:.3g} cost mu {limit_text(settings.mu, 4)}"
    )
    print("  releases planned   noise   accuracy of a release   (requests can be batched: fewer releases, less noise)")
    for number, (scale, accuracy) in done.series.items():
        print(f"  {number:>16}   {scale:<7.2g} {accuracy:.4f}")
    if done.cost_of_noise > NOTICEABLE:
        print(f"warning: {_too_noisy(done)}")
    print(f"store: {config.store} (readable by you only; publish nothing of it but model.json and certificates)")
    print(f"note: {config.csv} and its copies still hold everybody; delete people there too")
    print("note: encoding and scaling of the features were computed with everybody and stay; train anew to renew them")


def _too_noisy(done: "Trained") -> str:
    """The text of a warning: what the noise costs, and which settings cost less at the same guarantee."""
    settings = done.settings
    enough = [number for number, (_, accuracy) in done.series.items() if done.accuracy - accuracy <= NOTICEABLE]
    fewer = [f"fewer releases: --releases {max(enough)}"] if enough else []  # More releases cost more.
    ways = [
        f"a smaller --admitted, such as {settings.admitted / 1000:.1g}, with which more requests retrain the model",
        f"a larger --l2, such as {10 * settings.l2:.2g}, with which unlearning stays nearer to retraining (but the "
        "accuracy without noise may fall)",
        *fewer,
    ]
    return (
        f"with {settings.releases} releases planned, the noise takes {done.cost_of_noise:.2f} of the accuracy from the "
        f"first deletion on. The same guarantee costs less with {'; or '.join(ways)}. Train anew, into another --store"
    )


def delete(config: Delete) -> None:
    """Deletes people, and prints what it cost."""
    with words.outcome("nobody was deleted", OSError, ValueError):
        ids = people.read_ids(config.ids, config.encoding)
    from fmu_jax import deletion

    try:
        done = deletion.delete(config.store, ids, ignore_missing=config.ignore_missing, refresh=config.refresh)
    except UnwrittenError:
        if config.traceback:
            traceback.print_exc()
        raise
    number = done.certificate["number"]
    with _shown_or_not(f"request {number} is done and in the ledger; do not send it again"):
        show_request(done)


@contextlib.contextmanager
def _shown_or_not(done: str) -> Iterator[None]:
    """Reports that a finished request stays done if the terminal, or the output file, accepts no more text."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # So that Python does not try once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UnwrittenError(f"{done}, but this could not be shown ({error}) (exit status 3)") from error


def show_request(done: "Receipt") -> None:
    """Prints what a certificate says, and what only the owner of the store should see."""
    from fmu_jax.deletion.guarantee import limit_text

    content = done.certificate
    deleted, remaining, after = content["deleted"], content["remaining"], content["after"]
    ignored = {what.replace("_", " "): count for what, count in content["ignored"].items() if count}
    print(f"request {content['number']}: {deleted['train']} training and {deleted['test']} held-out people deleted")
    if ignored:
        print("passed over: " + ", ".join(f"{count} {what}" for what, count in ignored.items()))
    print(f"remaining: {remaining['train']} training and {remaining['test']} held-out people")
    apart = "" if done.distance is None else f", certified distance {done.distance:.2g} of {done.admitted:.2g} admitted"
    print(f"model: {done.how}{apart} (for you only: do not publish this line)")
    release, series = content["release"], content["series"]
    if release:
        print(f"this release: epsilon {release['epsilon']:g} at delta {release['delta']:g}, mu {release['mu']:g}")
    print(
        f"all releases so far ({series['released']}): epsilon {series['epsilon']:g}, mu {series['mu']:g} of "
        f"{limit_text(series['planned_mu'], 4)} planned; {series['planned_left']} of {series['planned_releases']} left"
    )
    if not series["planned_left"]:
        print("  every further request retrains the model, at no further cost of the guarantee")
    print(f"accuracy {_shown(after['accuracy'])}, odds gap {_shown(after['equalized_odds_mean'])} on held-out people")
    print(f"certificate: {done.path}")
    print("note: your own table, logs and backups still hold these people; delete them there too")


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def report(config: Report) -> None:
    """Writes the page."""
    from fmu_jax import deletion

    with words.outcome("no report was written", OSError):
        path = deletion.report(config.store, config.out)
    print(f"report: {path}")


def verify(config: Verify) -> None:
    """Checks everything.

    Raises:
      ValueError: Something disagrees.
    """
    from fmu_jax import deletion

    failed = 0
    for name, found in deletion.verify(config.store).items():
        failed += not found.agrees
        print(f"{'ok  ' if found.agrees else 'FAIL'} {name}: {found.detail}")
    if failed:
        raise ValueError(
            f"{failed} checks failed: {config.store} is damaged, was changed by hand, or has files yet to be written; "
            "the lines above say which, and nothing was changed now"
        )


COMMANDS = {"train": (Train, train), "delete": (Delete, delete), "report": (Report, report), "verify": (Verify, verify)}
UNWRITTEN = 3
"""Exit status of a request that is done and must not be repeated, though some of its files could not be written."""
NOTICEABLE = 0.02
"""Loss of accuracy by noise above which `train` warns; an average over draws, on the same held-out people."""
DESCRIPTION = "Maintain a fair model that forgets people on request, with a certificate for each request."


def _in_flags(command: Callable[[Any], None]) -> Callable[[Any], None]:
    """The command, whose errors name flags."""

    def run(config: Any) -> None:
        try:
            command(config)
        except (ValueError, OSError) as error:
            paths = [str(value) for value in vars(config).values() if isinstance(value, Path)]
            message = words.in_flags(str(error), FLAGS, verbatim=paths)
            raise (ValueError if isinstance(error, ValueError) else OSError)(message) from error

    return run


def main(argv: list[str] | None = None) -> int:
    """Runs the command that the first word names.

    Returns:
      The exit status: as ``cli.run_command``, and `UNWRITTEN` after a request that is done but whose files are not
      all written.
    """
    commands = {name: (config_type, _in_flags(command)) for name, (config_type, command) in COMMANDS.items()}
    try:
        return cli.run_command(commands, description=DESCRIPTION, prog="fmu-delete", argv=argv)
    except UnwrittenError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNWRITTEN
