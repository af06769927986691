"""Audits: can unlearned models be told from retrained ones, and does the certificate hold in fact?

    python -m scripts.fmu.audit --out runs/audit

Part "epsilon" unlearns the same rows from thousands of models by every method, and computes a lower bound on epsilon.
Part "attacks" unlearns planted rows from pairs of shadow models and attacks them: U-LiRA (Hayes et al. 2024), KLoM
(Georgiev et al. 2024), a loss threshold (Yeom et al. 2018). There is one row for each data set, part, seed and method.
"""

from dataclasses import dataclass
from typing import ClassVar

from scripts.fmu import problems
from scripts.harness import cli, looks, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

#: Title, axis label and chance level of each attack.
ATTACKS = {
    "lira_auc": ("U-LiRA", "area under the curve", 0.5),
    "klom": ("KLoM", "divergence from retrained", 0.0),
    "membership_auc": ("Loss threshold", "area under the curve", 0.5),
}


@dataclass(frozen=True)
class Config(problems.CertifiedConfig):
    """Audit every removal method."""

    PRESETS: ClassVar = {
        "quick": {"models": 1000, "pairs": 32},
        "paper": {"repeats": 5, "models": 20_000, "pairs": 1024, "datasets": ("compas", "adult")},
    }
    AXES: ClassVar = {"dataset": "datasets", "part": ("epsilon", "attacks")}

    datasets: tuple[names.DataSet, ...] = ("compas",)
    """Data sets to audit on; hsls needs --hsls, and larger ones take minutes."""
    repeats: cli.Count = 1
    sigma: cli.Positive = 1.0
    """Standard deviation of the objective perturbation."""
    models: cli.Count = 10_000
    """Number of perturbations drawn for the empirical epsilon."""
    subset: names.Subset = "minority"
    """Subset from which the models of the empirical epsilon forget rows."""
    fraction: cli.Share = 0.05
    """Share of all training rows that these models forget."""
    pairs: cli.Count = 256
    """Number of pairs of shadow models."""
    planted: cli.Count = 6
    """Number of planted rows that each shadow model is trained on and unlearns."""
    shards: cli.Count = 5
    """Number of shards of the sharded baseline."""


def rows_of(config: Config, *, dataset: str, part: str, seed: int) -> list[Row]:
    """One part of the audit of one data set."""
    train = problems.load_split(config, dataset, seed).train
    objective = config.objective()
    key = jax.random.fold_in(jax.random.key(seed), 2)
    if part == "attacks":
        sizes = {name: getattr(config, name) for name in ("planted", "sigma", "pairs", "shards")}
        return fmu_jax.audit.attack_table(objective, train, key=key, **sizes)
    forget = problems.draw_share(train, config.fraction, config.subset, seed=seed)
    sizes = {name: getattr(config, name) for name in ("sigma", "delta", "models")}
    table = fmu_jax.audit.epsilon_table(objective, train, forget, key=key, **sizes)
    return [{"rows_removed": len(forget)} | row for row in table]


def draw(config: Config, table: list[Row]) -> None:
    """Draw certified and empirical epsilon of each method, beside what fair Newton certifies, and the attacks."""
    labels = [plot.look(name).label for name in config.datasets]
    with plot.panels(config.out / "audit_epsilon.png", labels, legend=2, width=6.8, height=3.4) as axes:
        for panel, dataset in zip(axes, config.datasets, strict=True):
            part = report.where(table, dataset=dataset, part="epsilon")
            for name in ("certified_epsilon", "empirical_epsilon"):
                named = [row | {"method": plot.look(row["method"]).label, "bound": name} for row in part]
                plot.points(panel, named, x="method", y=name, by="bound")
            claim, most = report.median(part, "certified_epsilon", method="fair_newton"), part[0]["largest_bound"]
            panel.axhline(claim, color=looks.VERMILION, linewidth=0.8, label="certified by fair Newton")
            label = "most that so many models can show"
            panel.axhline(most, color=looks.GREY, linewidth=0.8, linestyle=":", label=label)
            panel.set_yscale("symlog", linthresh=0.01)
            panel.set(ylim=(-0.002, 3 * max(row["certified_epsilon"] for row in part)), ylabel="epsilon")
    plot.attacks(report.where(table, part="attacks"), config.out / "audit_attacks.png", ATTACKS)


def section(results: Results) -> list[report.Block]:
    """Tables and figures of both parts."""
    by, columns = ("dataset", "method"), looks.titled("certified_epsilon", empirical_epsilon="shown epsilon")
    columns |= looks.titled(largest_bound="most that could be shown")
    return [
        "Thousands of models are unlearned or retrained, each under its own draw of the noise, and the audit tells "
        "the two kinds apart as well as it can. An audit is useful only if it can fail, so one method, no removal, "
        "returns the parameters unchanged. Where a certificate is larger than the most that so many models can show, "
        "the audit cannot contradict it.",
        report.Table(report.medians(report.where(results.rows, part="epsilon"), by, columns),
                     "The epsilon that the audit shows (a lower bound at 95 %) beside the largest certificate."),
        *results.figures("audit_epsilon.png", "Certified and shown epsilon of each method",
                         "The audit shows a larger epsilon for no removal than fair Newton certifies."),
        report.Table(report.medians(report.where(results.rows, part="attacks"), by,
                                    {name: title for name, (title, _, _) in ATTACKS.items()}),
                     "Attacks on planted rows. At chance level, an area under the curve is 0.5 and KLoM is 0."),
        *results.figures("audit_attacks.png", "Success of three attacks on planted rows by method",
                         "Retraining is at chance level; no removal shows how much an attack can find."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Does what the audit shows stay below the certificate, and does it find a missing removal?"""
    table = report.where(results.rows, part="epsilon")
    fair, none = (report.where(table, method=name) for name in ("fair_newton", "no_removal"))
    can_fail = [row for row in table if row["method"] != "retrain" and row["certified_epsilon"] < row["largest_bound"]]
    holds = [row["empirical_epsilon"] <= row["certified_epsilon"] for row in can_fail]
    caught = [other["empirical_epsilon"] > ours["certified_epsilon"] for ours, other in zip(fair, none, strict=True)]
    return [
        Claim("The certificate holds in fact: no audit shows more than is certified, and the same audit finds a "
              "removal that was left out.", [*holds, *caught],
              f"shown {max(row['empirical_epsilon'] for row in fair):.3g} of certified "
              f"{min(row['certified_epsilon'] for row in fair):.3g}; without removal "
              f"{max(row['empirical_epsilon'] for row in none):.3g}"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_audit", Config, rows_of, draw=draw, heading="Audits: does the guarantee hold in fact?", section=section,
    claims=claims, x64=True,
    parts=(Part({"none": {"models": 3000, "pairs": 64, "repeats": 1}, "quick": {"repeats": 1}, "full": {"repeats": 1},
                 "paper": {"repeats": 1}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
