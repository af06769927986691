"""The report, from the certificates: deletions, the guarantee, and accuracy and fairness over the requests."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from fmu_jax import privacy
from fmu_jax.deletion import exports, files, guarantee, ledger, model, seal
from fmu_jax.deletion.curves import Drawn, Line, draw
from fmu_jax.deletion.model import Settings
from fmu_jax.deletion.records import parse

SHOWN = 50
"""Number of requests that the table shows; it folds earlier ones away."""
_GROUPS, _DASHES = 6, ("", "6 3", "2 3")


@model.in_float64
def report(store: str | Path, out: str | Path | None = None) -> Path:
    """Writes a page for people, and files that are missing in the store; a store on a read-only disk is only read.

    The page is one HTML file without scripts. It is drawn from the certificates alone, so it may be handed out with
    them: each request links to its certificate's file.

    Args:
      store: The store's folder.
      out: Where the page goes, a new file ``.html``; None is ``report.html`` in the store.

    Returns:
      The page's path.

    Raises:
      OSError: There is no store, or the page cannot be written; whatever was in its place is there still.
      ValueError: ``out`` exists or is no ``.html``, or the ledger does not fit its seal.
    """
    folder, path = Path(store), Path(store) / exports.REPORT if out is None else Path(out)
    if out is not None and (path.exists() or path.suffix != ".html"):
        why = "exists and stays as it is" if path.exists() else "does not end in .html"
        raise ValueError(f"`out` {path} {why}; name a new page, such as {path.with_suffix('.new.html')}")
    with ledger.opened(folder, to_look=True) as db:
        if not ledger.read_only(db):
            exports.catch_up(db, folder)
        elif out is None:
            raise PermissionError(
                f"{folder} is read-only, so its page cannot be written there; say with `out` where it goes, such as "
                "page.html"
            )
        else:
            seal.check_books(db)
        with exports.private(), ledger.exclusive(db):
            settings = Settings.from_json(ledger.meta(db, "settings"))
            contents = [parse(record) for record in ledger.records(db)]
            certificates = os.path.relpath((folder / exports.CERTIFICATES).resolve(), path.resolve().parent)
            files.write_text(path, render(settings, contents, certificates))
    return path


def render(settings: Settings, contents: Sequence[dict[str, Any]], certificates: str) -> str:
    """The page as text.

    Args:
      settings: Settings of the store.
      contents: The certificates' contents, from the training's on.
      certificates: Where their files are, seen from the page's folder.
    """
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.j2")
    lines = [_row(content, certificates) for content in contents]
    planned = float(privacy.gaussian_epsilon(settings.mu, 1.0, settings.delta))
    return template.render(
        settings=settings,
        contents=contents,
        last=contents[-1],
        deleted=sum(sum(content["deleted"].values()) for content in contents),
        spent=guarantee.limit_text(contents[-1]["series"]["epsilon"]),
        planned=guarantee.limit_text(planned),
        guesses=guarantee.right_guesses(contents[-1]["series"]["mu"]),
        charts=_charts(settings, contents, planned),
        earlier=lines[: max(len(lines) - SHOWN, 0)],
        recent=lines[max(len(lines) - SHOWN, 0) :],
    )


def _row(content: dict[str, Any], certificates: str) -> dict[str, str]:
    """A request as the table shows it, by the column's name."""
    series, after = content["series"], content["after"]
    return {
        "number": "training" if not content["number"] else f"{content['number']}",
        "link": f"{certificates}/{exports.certificate_name(content['number'])}",
        "time": content["time"].replace("T", " ").replace("Z", " UTC"),
        "deleted": f"{sum(content['deleted'].values()):,}",
        "remaining": f"{sum(content['remaining'].values()):,}",
        "release": f"{content['release']['number']}" if content["release"] else "–",
        "epsilon": guarantee.limit_text(series["epsilon"]),
        "accuracy": _share(after["accuracy"]),
        "gap": _share(after["equalized_odds_mean"]),
    }


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _charts(settings: Settings, contents: Sequence[dict[str, Any]], planned: float) -> list[Drawn]:
    after = [content["after"] for content in contents]
    deleted = list(itertools.accumulate(sum(content["deleted"].values()) for content in contents))
    looks = [
        (f"g{k % _GROUPS}", _DASHES[k // _GROUPS % len(_DASHES)], value)
        for k, value in enumerate(settings.group_values)
    ]

    def by_group(name: str) -> list[Line]:
        return [
            Line(f"{settings.group_name} = {value}", look, [content[name][k] for content in after], dash)
            for k, (look, dash, value) in enumerate(looks)
        ]

    def overall(name: str, label: str, look: str = "ink", dash: str = "") -> Line:
        return Line(label, look, [content[name] for content in after], dash)

    spent = [content["series"]["epsilon"] for content in contents]
    return [
        draw("People deleted so far", [Line("deleted", "ink", deleted, steps=True)], zero=True, whole=True),
        draw(
            f"Epsilon of all releases together, at delta {settings.delta:g}",
            [
                Line("spent", "ink", spent, steps=True),
                Line("planned limit", "soft", [planned] * len(contents), "5 4"),
            ],
            zero=True,
        ),
        draw("Accuracy", [overall("accuracy", "everybody"), *by_group("group_accuracy")]),
        draw(f"Share predicted {settings.label_name} = {settings.label_values[1]}", by_group("selection_rate")),
        draw(
            "Gaps between groups",
            [
                overall("equalized_odds_mean", "equalized odds, mean"),
                overall("demographic_parity", "demographic parity", "soft", "5 4"),
            ],
            zero=True,
        ),
    ]
