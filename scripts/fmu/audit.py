"""Audits: can unlearned models be told from retrained ones, and does the certificate hold in fact?

    python -m scripts.fmu.audit --out runs/audit

Part "epsilon" draws thousands of perturbations, unlearns the same rows from each model by every method, and bounds
epsilon from below at 95 %, beside the largest certificate over the draws. Part "attacks" unlearns planted rows from
pairs of shadow models and attacks them: U-LiRA (Hayes et al. 2024), KLoM (Georgiev et al. 2024) and a loss threshold
(Yeom et al. 2018). An audit is worth something if it can fail: "no removal" returns the parameters unchanged. About a
minute on two cores. Rows: one for each data set, part, seed and method.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from matplotlib.axes import Axes

from fmu_jax import Objective, audit, privacy
from fmu_jax.forget_sets import Subset, draw_rows
from scripts.fmu import problems
from scripts.fmu.problems import ProblemConfig
from scripts.harness import cli, looks, plot

#: Title, axis label and chance level of each attack.
ATTACKS = {
    "lira_auc": ("U-LiRA", "area under the curve", 0.5),
    "klom": ("KLoM", "divergence from retrained", 0.0),
    "membership_auc": ("Loss threshold", "area under the curve", 0.5),
}


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Audit every removal method."""

    PRESETS: ClassVar = {
        "quick": {"models": 1000, "pairs": 32},
        "paper": {"repeats": 5, "models": 20_000, "pairs": 1024, "datasets": ("compas", "adult")},
    }

    out: Path = Path("runs/fmu_audit")
    datasets: tuple[problems.DataSet, ...] = ("compas",)
    """Data sets; hsls needs --hsls, and larger ones take minutes."""
    repeats: cli.Count = 1
    """Seeds, counted from --seed: each draws a split, the rows to forget and all perturbations."""
    sigma: cli.Positive = 1.0
    """Standard deviation of the objective perturbation."""
    delta: cli.Probability = 1e-5
    """Failure probability of the certificates."""
    models: cli.Count = 10_000
    """Perturbations drawn for the empirical epsilon."""
    subset: Subset = "minority"
    """Where the rows forgotten by those models come from."""
    fraction: cli.Share = 0.05
    """Their share of all training rows."""
    pairs: cli.Count = 256
    """Pairs of shadow models."""
    planted: cli.Count = 6
    """Planted rows that each shadow model is trained on and unlearns."""
    shards: cli.Count = 5
    """Shards of the sharded baseline."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, part and seed."""
    return config.units(part=("epsilon", "attacks"))


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figures."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, part: str, seed: int) -> list[dict[str, Any]]:
    """One part of the audit of one data set."""
    train = problems.load_split(config, dataset, seed).train
    objective = Objective(l2=config.l2, fairness=config.fairness)
    key = jax.random.fold_in(jax.random.key(seed), 2)
    return (epsilon_rows if part == "epsilon" else attack_rows)(config, objective, train, seed, key)


def epsilon_rows(config: Config, objective: Objective, train, seed: int, key) -> list[dict[str, Any]]:
    """The empirical epsilon of each method beside what its residuals certify."""
    forget = draw_rows(train, round(config.fraction * len(train.y)), subset=config.subset, seed=seed)
    if forget is None:
        raise ValueError(f"--fraction: {config.fraction} of the rows is more than {config.subset!r} can spare")
    for_draws, for_split = jax.random.split(key)
    draws = audit.draw_models(
        objective, train, forget, key=for_draws, sigma=config.sigma, models=config.models, methods=audit.PERTURBED
    )
    ceiling = float(audit.largest_bound(config.models, delta=config.delta))
    table = []
    for method in audit.PERTURBED:
        bound = audit.empirical_epsilon(draws.unlearned[method], draws.retrained, delta=config.delta, key=for_split)
        residual = float(draws.residual[method].max())
        certified = float(privacy.certified_epsilon(residual, config.sigma, config.delta))
        row = {"method": method, "rows_removed": len(forget), "residual_norm": residual}
        row |= {"certified_epsilon": certified, "empirical_epsilon": float(bound.epsilon), "largest_bound": ceiling}
        table.append(row | {f"empirical_{name}": float(value) for name, value in bound.by_test.items()})
    return table


def attack_rows(config: Config, objective: Objective, train, seed: int, key) -> list[dict[str, Any]]:
    """What three attacks find of planted rows after each method."""
    del seed
    for_rows, for_models = jax.random.split(key)
    planted = audit.plant(train, config.planted, key=for_rows)
    shadow = audit.shadow_models(
        objective, train, planted, key=for_models, sigma=config.sigma, pairs=config.pairs, shards=config.shards
    )
    table = []
    for method in audit.AUDITED:
        margins = shadow.margins[method]
        unlearned, unseen = audit.by_membership(margins, shadow.member)
        lira = audit.lira(unlearned, unseen, paired=True)
        klom = np.asarray(audit.klom(unlearned, shadow.oracle[method]))
        models = (-1, margins.shape[-1])
        losses = jax.nn.softplus(-margins).reshape(models)
        outsider = audit.membership(losses, shadow.member.reshape(models))
        row = {"method": method, "lira_auc": lira.auc.mean(), "lira_auc_worst": lira.auc.max()}
        row |= {"lira_advantage": lira.advantage.mean(), "lira_true_positive_rate": lira.true_positive_rate}
        row |= {"klom": klom.mean(), "klom_quantile_95": np.quantile(klom, 0.95)}
        row |= {"membership_auc": outsider.auc.mean(), "membership_advantage": outsider.advantage.mean()}
        table.append({name: value if name == "method" else float(value) for name, value in row.items()})
    return table


def draw(config: Config, table: Sequence[dict[str, Any]]) -> list[Path]:
    """One figure for each part."""
    names = [plot.look(name).label for name in config.datasets]
    figure, axes = plot.figure(1, len(names), titles=names, width=6.8, height=3.4)
    for panel, dataset in zip(axes[0], config.datasets, strict=True):
        draw_epsilon(panel, [row for row in table if (row["dataset"], row["part"]) == (dataset, "epsilon")])
    plot.legend(figure, columns=2)
    paths = [plot.save(figure, config.out / "audit_epsilon.png")]

    part = [row | {"dataset": plot.look(row["dataset"]).label} for row in table if row["part"] == "attacks"]
    figure, axes = plot.figure(1, len(ATTACKS), titles=[title for title, _, _ in ATTACKS.values()], height=2.8)
    for panel, (column, (_, label, chance)) in zip(axes[0], ATTACKS.items(), strict=True):
        panel.axhline(chance, color=looks.BLACK, linewidth=0.8, linestyle=":", label="chance")
        panel.set_ylabel(label)
        plot.points(panel, part, x="dataset", y=column)
    plot.legend(figure, columns=5)
    return [*paths, plot.save(figure, config.out / "audit_attacks.png")]


def draw_epsilon(panel: Axes, part: Sequence[dict[str, Any]]) -> None:
    """Certified and empirical epsilon of each method, beside what fair Newton certifies."""
    for name in ("certified_epsilon", "empirical_epsilon"):
        named = [row | {"method": plot.look(row["method"]).label, "bound": name} for row in part]
        plot.points(panel, named, x="method", y=name, by="bound")
    claim = np.median([row["certified_epsilon"] for row in part if row["method"] == "fair_newton"])
    panel.axhline(float(claim), color=looks.VERMILION, linewidth=0.8, label="certified by fair Newton")
    ceiling = max(row["largest_bound"] for row in part)
    panel.axhline(ceiling, color=looks.GREY, linewidth=0.8, linestyle=":", label="most that so many models can show")
    panel.set_yscale("symlog", linthresh=0.01)
    panel.set_ylim(-0.002, 3 * max(row["certified_epsilon"] for row in part))
    panel.set_ylabel("epsilon")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
