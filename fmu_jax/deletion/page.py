"""The report: what was deleted, what it cost, and what became of accuracy and fairness, from the certificates."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmu_jax.deletion import exports, ledger, model, records, seal
from fmu_jax.deletion.model import Settings
from scripts.harness import looks, plot, report, rows

_SHOWN = 50
_COLORS = (looks.BLUE, looks.VERMILION, looks.GREEN, looks.PURPLE, looks.ORANGE, looks.SKY)
_LINES = tuple((color, dash) for dash in ("-", "--", ":") for color in _COLORS)
_SHORT = {
    records.TRAINED: "trained",
    records.STREAMED: "streamed",
    records.REFRESHED: "retrained",
    records.UNCHANGED: "unchanged",
}
_GUARANTEE = """
What the guarantee says. For each published model: whoever sees it cannot tell, up to epsilon and delta, whether the
people deleted so far had been in the training data and were then removed, or had never been in it and the model had
been trained without them. Epsilon near 0 means no difference at all; the budget is the largest value that a published
model may have, and a model that would pass it is first retrained on who remains.

What it does not say. It holds only while the noise that was added to the training objective stays secret: whoever can
read the ledger, or has the training rows, can compute it. It is about requests that were not chosen by looking at
published models. It is about one published model at a time: somebody who kept an earlier one can compare the two. It is
about the model and this store, not about the table that it was trained on, its backups, logs, or predictions made
before. The scaling and encoding of the features were computed with everybody and are kept.

How to read the gaps. A shaded band is where the same gap of a retrained model lies, computed without retraining.
"""


def write(folder: Path, out: Path | None = None) -> Path:
    """Writes a store's report, and what is missing in the store; one on a read-only disk is only looked at.

    Args:
      folder: the store.
      out: where the page goes, a new file ``.html``; None is ``report.html`` in the store.

    Returns:
      The page's path.

    Raises:
      OSError: there is no store, or the page cannot be written; whatever was in its place is there still.
      ValueError: ``out`` exists or is no ``.html``, or the ledger does not fit its seal.
    """
    model.use_float64()
    if out is not None and (out.exists() or out.suffix != ".html"):
        why = "exists and stays as it is" if out.exists() else "does not end in .html"
        raise ValueError(f"--out {out} {why}; name a new page, such as {out.with_suffix('.new.html')}")
    with ledger.opened(folder, to_look=True) as db:
        if not ledger.read_only(db):
            exports.catch_up(db, folder)
        elif out is None:
            raise PermissionError(
                f"{folder} is read-only, so its page cannot be written there; say where it goes: --out FILE.html"
            )
        else:
            seal.check_books(db)
        with exports.private(), ledger.exclusive(db), tempfile.TemporaryDirectory() as drawn:
            settings = Settings.from_json(ledger.meta(db, "settings"))
            said = [records.parse(record) for record in ledger.records(db)]
            return report.write(
                out or folder / exports.REPORT,
                "Deletions",
                _sections(settings, said, Path(drawn)),
                lead=_lead(said),
                config=_configuration(settings),
                environment=said[-1]["versions"] | {"platform": rows.environment()["platform"]},
            )


def _lead(said: Sequence[dict[str, Any]]) -> str:
    last = said[-1]
    deleted = sum(sum(content["deleted"].values()) for content in said)
    refreshes = sum(content["method"] == records.REFRESHED for content in said)
    return (
        f"{deleted} people were deleted by {len(said) - 1} requests since {said[0]['time']}, the last at "
        f"{last['time']}; {sum(last['remaining'].values())} remain. The published model has spent epsilon "
        f"{last['epsilon']:g} of {last['epsilon_budget']:g} (delta {last['delta']:g}). Retrainings so far: "
        f"{refreshes}."
    )


def _sections(settings: Settings, said: list[dict[str, Any]], drawn: Path) -> list[report.Section]:
    label, group = settings.label_name, settings.group_name
    costs = "How many people were deleted, and the epsilon of the published model against the budget, by request"
    measures = "Accuracy and share predicted positive by group, and the gaps between the groups, by request"
    return [
        report.Section("What is guaranteed", [_GUARANTEE]),
        report.Section(
            "Deletions and what they cost",
            [
                report.Figure(
                    _draw_costs(said, drawn / "costs.png"), costs, f"{costs}. A square is a model that was retrained."
                ),
                report.Table(_lines(said), caption=_caption(said)),
            ],
        ),
        report.Section(
            "Accuracy and fairness on held-out people",
            [
                f"Predicted: {label} = {settings.label_values[1]}. Groups: {group} = "
                f"{' and '.join(settings.group_values)}. Held-out people can be deleted too, and then no longer count.",
                report.Figure(_draw_measures(settings, said, drawn / "measures.png"), measures, f"{measures}."),
            ],
        ),
    ]


def _caption(said: Sequence[dict[str, Any]]) -> str:
    shown = f"the last {_SHOWN} of {len(said) - 1} requests" if len(said) > _SHOWN else "every request"
    return f"The training and {shown}; each has its certificate in the store. The residual is an upper bound."


def _lines(said: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = [said[0], *said[1:][-_SHOWN:]]
    return [
        {
            "request": content["number"],
            "time": content["time"],
            "deleted": sum(content["deleted"].values()),
            "remaining": sum(content["remaining"].values()),
            "model": _SHORT[content["method"]],
            "residual": content["residual_bound"],
            "epsilon": content["epsilon"],
            "accuracy": content["after"]["accuracy"],
            "odds gap": content["after"]["equalized_odds_mean"],
        }
        for content in shown
    ]


def _draw_costs(said: Sequence[dict[str, Any]], path: Path) -> Path:
    numbers = [content["number"] for content in said]
    total, deleted = 0, []
    for content in said:
        total += sum(content["deleted"].values())
        deleted.append(total)
    figure, ((left, right),) = plot.figure(1, 2, titles=("people deleted", "epsilon of the published model"))
    left.step(numbers, deleted, where="post", color=looks.BLUE, linewidth=1.6)
    left.set(xlabel="request", ylabel="people, in all", ylim=(0, None))
    spent = [content["epsilon"] for content in said]
    right.plot(
        numbers, spent, color=looks.VERMILION, marker="." if len(said) < 100 else "", linewidth=1.6, label="spent"
    )
    refreshed = [content for content in said if content["method"] == records.REFRESHED]
    if refreshed:
        at, cost = [content["number"] for content in refreshed], [content["epsilon"] for content in refreshed]
        right.plot(at, cost, color=looks.BLACK, marker="s", linestyle="none", label="retrained")
    right.axhline(said[-1]["epsilon_budget"], color=looks.GREY, linestyle="--", label="budget")
    right.set(xlabel="request", ylabel="epsilon", ylim=(0, None))
    plot.legend(figure)
    return plot.save(figure, path)


def _draw_measures(settings: Settings, said: Sequence[dict[str, Any]], path: Path) -> Path:
    numbers, after = [content["number"] for content in said], [content["after"] for content in said]
    figure, ((accuracy, rate, gaps),) = plot.figure(
        1, 3, titles=("accuracy", "share predicted positive", "gaps between groups")
    )
    for axes, name in ((accuracy, "group_accuracy"), (rate, "selection_rate")):
        for group, (color, dash) in zip(range(len(settings.group_values)), itertools.cycle(_LINES), strict=False):
            values = [_number(content[name][group]) for content in after]
            # A dollar would begin a formula.
            label = f"{settings.group_name} = {settings.group_values[group]}".replace("$", r"\$")
            axes.plot(numbers, values, color=color, linestyle=dash, linewidth=1.6, label=label)
        axes.set(xlabel="request", ylabel="share of the group")
    accuracy.plot(numbers, [_number(content["accuracy"]) for content in after], color=looks.GREY, label="all")
    for name, label, color in (
        ("equalized_odds_mean", "odds gap (mean)", looks.GREEN),
        ("demographic_parity", "parity gap", looks.PURPLE),
    ):
        gaps.plot(numbers, [_number(content[name]) for content in after], color=color, linewidth=1.6, label=label)
        ends = [content["retrained"][name] if content["retrained"] else (None, None) for content in after]
        low, high = ([_number(end) for end in side] for side in zip(*ends, strict=True))
        gaps.fill_between(numbers, low, high, color=color, alpha=0.2, linewidth=0)
    gaps.set(xlabel="request", ylabel="gap", ylim=(0, None))
    plot.legend(figure, columns=5)
    return plot.save(figure, path)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _configuration(settings: Settings) -> dict[str, Any]:
    names = ("store", "label_name", "label_values", "group_name", "group_values", "penalty", "fairness", "l2")
    shown = {name: getattr(settings, name) for name in (*names, "sigma", "delta", "budget", "scaling")}
    return shown | {"people": settings.rows, "held_out": settings.test_rows, "features": settings.feature_names}
