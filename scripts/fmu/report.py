"""The unlearning part of the report: tables and figures from the rows of the four experiments."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.fmu import certificates, interventions
from scripts.harness import plot, report, store

PARTS = (
    "fmu_removal", "fmu_certificates", "fmu_tradeoff", "fmu_interventions", "fmu_stream", "fmu_published_noise",
    "fmu_audit", "fmu_groups", "fmu_embeddings",
)  # fmt: skip

BOUND_TITLES = {
    "data set": "data set",
    "share removed": "removed",
    "residual_norm": "exact",
    "row_bound": "row-wise",
    "gram_bound": "Gram",
    "paper_data_dependent": "paper, data",
    "paper_worst_case": "paper, worst",
    "epsilon_residual_norm": "epsilon",
    "epsilon_paper_data_dependent": "epsilon, paper",
}


def sections(folder: Path) -> list[report.Section]:
    """The sections, in order.

    Args:
      folder: where each experiment's run folder lies under its name.
    """
    tables = {name: store.read_rows(folder / name) for name in PARTS}
    names = list(dict.fromkeys(row["dataset"] for row in tables["fmu_removal"]))
    return [
        report.Section("Data sets", [data_table(tables["fmu_removal"])]),
        report.Section("Unlearning: what is left of fairness and accuracy", removal_blocks(folder, tables, names)),
        report.Section("Certificates: what a removal costs", certificate_blocks(folder, tables["fmu_certificates"])),
        report.Section("Accuracy against fairness", tradeoff_blocks(folder)),
        report.Section("Popular interventions under efficient methods", intervention_blocks(folder, tables, names)),
        report.Section("Requests one by one", stream_blocks(folder, tables["fmu_stream"])),
        report.Section(
            "Noise on the objective or on the published model", noise_blocks(folder, tables["fmu_published_noise"])
        ),
        report.Section("Audits: does the guarantee hold in fact?", audit_blocks(folder, tables["fmu_audit"])),
        report.Section("Intersections of groups", group_blocks(folder, tables["fmu_groups"])),
        report.Section("Deep models: certified heads on features", embedding_blocks(folder, tables["fmu_embeddings"])),
    ]


def data_table(table: Sequence[dict[str, Any]]) -> report.Table:
    """What was trained on, and how the trained model does."""
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in table):
        part = [row for row in table if row["dataset"] == dataset and row["method"] == "no_removal"]
        line: dict[str, Any] = {"data set": plot.look(dataset).label}
        for column in ("train_rows", "features", "accuracy", "equalized_odds_mean", "demographic_parity"):
            line[column] = median(part, column)
        lines.append(line)
    return report.Table(lines, caption="The trained model before any removal (medians over seeds, test rows).")


def removal_blocks(folder: Path, tables: Mapping[str, list[dict[str, Any]]], names: Sequence[str]) -> list[Any]:
    """Table at 5 % and the figures of ``fmu_removal``."""
    blocks: list[Any] = [
        "Rows are forgotten at random, from the minority and from the majority group. Retraining on what remains is "
        "the target. Newton, projective and sharded cannot see the fairness penalty; they run for comparison only."
    ]
    for dataset in names:
        label, lines = plot.look(dataset).label, []
        for method in dict.fromkeys(row["method"] for row in tables["fmu_removal"]):
            part = [
                row
                for row in tables["fmu_removal"]
                if (row["dataset"], row["method"], row["fraction"]) == (dataset, method, 0.05)
            ]
            line: dict[str, Any] = {"method": plot.look(method).label}
            for column in ("distance", "accuracy", "equalized_odds_mean", "demographic_parity", "time_ms"):
                line[column] = median(part, column)
            lines.append(line)
        caption = f"{label}: 5 % of the rows forgotten (medians over subsets and seeds; metrics on test rows)."
        blocks.append(report.Table(lines, caption=caption))
        for path in sorted((folder / "fmu_removal").glob(f"removal_{dataset}_*.png")):
            alt = f"{label}: gap, accuracy, distance to retrained and time against the share removed, by method"
            blocks.append(report.Figure(path, alt, f"{label}: every method against the share of rows removed."))
    return blocks


def certificate_blocks(folder: Path, table: Sequence[dict[str, Any]]) -> list[Any]:
    """Bounds side by side and the figure of ``fmu_certificates``."""
    delta = min(row["delta"] for row in table)
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in table):
        for fraction in sorted({row["fraction"] for row in table if row["dataset"] == dataset}):
            part = [
                row
                for row in table
                if (row["dataset"], row["fraction"], row["sigma"], row["delta"]) == (dataset, fraction, 1.0, delta)
            ]
            line: dict[str, Any] = {"data set": plot.look(dataset).label, "share removed": fraction}
            for column in (*certificates.BOUNDS, "epsilon_residual_norm", "epsilon_paper_data_dependent"):
                line[column] = median(part, column)
            lines.append(line)
    caption = f"Bounds on the residual gradient (sum form) and epsilon; sigma = 1, delta = {delta:g}, random rows."
    alt = "Bounds on the residual against the share removed, and epsilon against sigma, ours beside the paper's"
    return [
        "The smaller the gradient of the remaining objective at the unlearned parameters, the less noise hides the "
        "removal. Ours hold from any start; the paper's hold from a converged one, and its worst case is about one "
        "removed row. Every epsilon divides by sigma (Guo et al. 2020).",
        report.Table(lines, caption=caption, columns=BOUND_TITLES, digits=3),
        report.Figure(folder / "fmu_certificates" / "certificates.png", alt, "Our bounds beside the paper's."),
    ]


def tradeoff_blocks(folder: Path) -> list[Any]:
    """The figure of ``fmu_tradeoff``."""
    alt = "Accuracy against fairness gap as the penalty's weight grows, for the trained, retrained and unlearned model"
    return [
        "Each line follows one model as the weight of the penalty grows; 5 % of the rows are forgotten at random.",
        report.Figure(folder / "fmu_tradeoff" / "tradeoff.png", alt, "Test accuracy against the penalised gap."),
    ]


def intervention_blocks(folder: Path, tables: Mapping[str, list[dict[str, Any]]], names: Sequence[str]) -> list[Any]:
    """Table and figure of ``fmu_interventions``."""
    blocks: list[Any] = [
        "The paper's negative claim as an experiment. A model is trained with each intervention, 5 % of the rows, all "
        "from the minority, are forgotten, and the result is compared with retraining under the same intervention. "
        "Group thresholds are refitted. Shards answer by their mean log-odds here, and are trained without noise."
    ]
    for dataset in names:
        label, table = plot.look(dataset).label, interventions.summary(tables["fmu_interventions"], dataset)
        caption = f"{label}: against the intervention's own retrained model (medians over seeds, test rows)."
        blocks.append(report.Table(table, caption=caption, digits=2))
    alt = "Distance to the retrained model, differing predictions and change of the gap, by intervention and method"
    blocks.append(report.Figure(folder / "fmu_interventions" / "interventions.png", alt, "Every intervention."))
    return blocks


def stream_blocks(folder: Path, table: Sequence[dict[str, Any]]) -> list[Any]:
    """Table and figure of ``fmu_stream``."""
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in table):
        for subset in dict.fromkeys(row["subset"] for row in table):
            part = [row for row in table if (row["dataset"], row["subset"]) == (dataset, subset)]
            ends = [row for row in part if row.get("distance") is not None]
            line: dict[str, Any] = {"data set": plot.look(dataset).label, "rows": subset}
            line |= {"requests": median(ends, "request"), "refreshes": median(ends, "refreshes")}
            line |= {"largest epsilon": max(row["epsilon"] for row in part)}
            for column in ("distance", "streamed_accuracy", "retrained_accuracy", "streamed_odds", "retrained_odds"):
                line[column.replace("_", ", ")] = median(ends, column)
            lines.append(line)
    alt = "Certified epsilon of the published model, rising with the deletions and falling at each refresh"
    return [
        "Each request is served by subtracting its row's terms and solving again from the anchor, at a cost that does "
        "not depend on the number of rows; where the certified epsilon passes the budget of 1, the model is solved "
        "anew before it is published.",
        report.Table(lines, caption="After the last request, beside retraining (medians over seeds, test rows)."),
        report.Figure(
            folder / "fmu_stream" / "stream.png",
            alt,
            "What published models have spent: one seed, 80 of its requests; not every refresh shows.",
        ),
    ]


def noise_blocks(folder: Path, table: Sequence[dict[str, Any]]) -> list[Any]:
    """Table and figure of ``fmu_published_noise``."""
    at = min({row["epsilon"] for row in table if row["epsilon"] > 0}, key=lambda epsilon: abs(np.log(epsilon)))
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in table:
        if row["epsilon"] in (0, at):
            key = tuple(row.get(name) for name in ("dataset", "method", "noise", "bound", "steps"))
            groups.setdefault(key, []).append(row)
    lines = []
    for (dataset, method, noise, bound, steps), part in groups.items():
        line: dict[str, Any] = {"data set": plot.look(dataset).label, "method": plot.look(method).label}
        line |= {"steps": steps, "noise": noise, "bound": bound and bound.replace("_", " ")}
        for column in ("sigma", "distance", "accuracy", "equalized_odds_mean"):
            line[column.replace("_", " ")] = median(part, column)
        lines.append(line)
    alt = "Accuracy and odds gap against epsilon: fair Newton stays at the model without noise, descent falls to chance"
    return [
        "Descent-to-delete hides the removal by noise on the published parameters, fair Newton by noise on the "
        "training objective. A gap that falls along with the accuracy is no fairness: there the predictions are "
        "guesses. Each sigma is fitted to the deletion shown.",
        report.Table(lines, caption=f"At epsilon = {at:g} (medians over seeds, means over noise draws, test rows)."),
        report.Figure(folder / "fmu_published_noise" / "published_noise.png", alt, "At equal epsilon."),
    ]


def audit_blocks(folder: Path, table: Sequence[dict[str, Any]]) -> list[Any]:
    """Tables and figures of ``fmu_audit``."""
    columns = {
        "epsilon": ("certified_epsilon", "empirical_epsilon", "largest_bound"),
        "attacks": ("lira_auc", "klom", "membership_auc"),
    }
    captions = {
        "epsilon": "Empirical epsilon, a lower bound at 95 %, beside the largest certificate over the draws.",
        "attacks": "Attacks on planted rows: 0.5 is chance for areas under the curve, 0 for KLoM.",
    }
    alts = {
        "epsilon": "Certified and empirical epsilon of each method; doing nothing exceeds what fair Newton certifies",
        "attacks": "Success of three attacks on planted rows by method; retraining is at chance, no removal worst",
    }
    blocks: list[Any] = [
        "Thousands of models are unlearned and retrained under draws of the noise, and told apart as well as can be. "
        "An audit is worth something if it can fail: no removal returns the parameters unchanged.",
    ]
    for part, names in columns.items():
        rows = [row for row in table if row["part"] == part]
        lines = []
        for dataset, method in dict.fromkeys((row["dataset"], row["method"]) for row in rows):
            chosen = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method)]
            line: dict[str, Any] = {"data set": plot.look(dataset).label, "method": plot.look(method).label}
            lines.append(line | {name: median(chosen, name) for name in names})
        blocks.append(report.Table(lines, caption=captions[part]))
        blocks.append(report.Figure(folder / "fmu_audit" / f"audit_{part}.png", alts[part]))
    return blocks


def group_blocks(folder: Path, table: Sequence[dict[str, Any]]) -> list[Any]:
    """Table and figure of ``fmu_groups``."""
    lines = []
    names = ("dataset", "penalty", "penalised")
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in table):
        part = [row for row in table if tuple(row[name] for name in names) == key]
        dataset, penalty, penalised = key
        line: dict[str, Any] = {"data set": plot.look(dataset).label, "penalty": penalty.replace("_", " ")}
        line["on"] = penalised
        trained = [row for row in part if row["method"] == "no_removal"]
        for column in ("score_gap", "score_gap_mean", "equalized_odds_mean", "accuracy"):
            line[column.replace("_", " ")] = median(trained, column)
        for method in ("fair_newton", "newton"):
            of_method = [row for row in part if row["method"] == method]
            line[f"distance, {plot.look(method).label}"] = median(of_method, "distance")
        lines.append(line)
    alt = "Gaps between intersections and accuracy, by what was penalised: nothing, each attribute alone, both together"
    return [
        "A penalty on each attribute alone, and one on all pairs of their intersections. Gaps are the worst between "
        "intersections; of scores, which a penalty sees, in standard deviations. Distances are to the retrained model, "
        "after rows of one intersection are forgotten.",
        report.Table(lines, caption="What a penalty on one attribute leaves between intersections (test rows)."),
        report.Figure(folder / "fmu_groups" / "groups.png", alt, "Labels do not always follow the scores."),
    ]


def embedding_blocks(folder: Path, table: Sequence[dict[str, Any]]) -> list[Any]:
    """Table and figures of ``fmu_embeddings``."""
    most = max(row["rows_removed"] for row in table)
    lines = []
    for dataset, features in dict.fromkeys((row["dataset"], row["features"]) for row in table):
        part = [
            row
            for row in table
            if (row["dataset"], row["features"], row["method"], row["rows_removed"])
            == (dataset, features, "fair_newton", most)
        ]
        line: dict[str, Any] = {"data set": plot.look(dataset).label, "features": features}
        for column in ("accuracy", "equalized_odds_mean", "distance", "head_epsilon", "total_epsilon"):
            line[column.replace("_", " ")] = median(part, column)
        lines.append(line)
    blocks: list[Any] = [
        "A network has no certificate, a linear head on its features has. Frozen features come from rows that nobody "
        "asks to remove; private ones from the head's own rows by differentially private training, whose epsilon "
        "counts once for every removed row.",
        report.Table(lines, caption=f"After {most} rows are forgotten by fair Newton (test rows)."),
    ]
    for path in sorted((folder / "fmu_embeddings").glob("embeddings_*.png")):
        alt = "Accuracy, odds gap, distance to the retrained head and epsilon against the number of rows, by features"
        blocks.append(report.Figure(path, alt))
    return blocks


def median(part: Sequence[dict[str, Any]], column: str) -> float | int | None:
    """Median of a column over rows that have it, or None; whole numbers stay whole."""
    values = [row[column] for row in part if row.get(column) is not None]
    middle = float(np.median(values)) if values else None
    return int(middle) if middle is not None and all(isinstance(value, int) for value in values) else middle
