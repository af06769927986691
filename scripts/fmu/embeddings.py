"""Certified fair heads on MLP features, beside the linear model on the raw columns.

    python -m scripts.fmu.embeddings --out runs/embeddings

After the authors' embedding experiments, whose feature files were not published, so that numbers cannot be compared.
The features are the "raw" columns, the hidden units of an MLP trained by L-BFGS on public rows, which nobody asks to
remove ("frozen"), or those of an MLP trained by DP-SGD on the head's own rows ("private"), whose epsilon is added to
the head's for each removed row. Differs from the original: rows are scaled one by one (D15), not by the largest norm.
Each data set, kind of features, seed, number of rows removed and method has one row.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from scripts.fmu import problems
from scripts.harness import cli, looks, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax, jnp

#: The measures of each figure, with what they are called.
FIGURES = {
    "utility": {"accuracy": "accuracy (test)", "equalized_odds_mean": "average odds gap (test)"},
    "certificates": {"distance": "distance to the retrained head", "total_epsilon": "epsilon, features and head"},
}


@dataclass(frozen=True)
class HeadsConfig(problems.CertifiedConfig):
    """Flags of every script on certified heads."""

    AXES: ClassVar = {"dataset": "datasets", "features": "features"}

    repeats: cli.Count = 1
    counts: tuple[cli.Count, ...] = (1, 10, 100, 1000)
    """Numbers of rows to remove at once."""
    public: cli.Share = 0.3
    """Share of the training rows that are public, and on which the frozen extractor is trained."""


@dataclass(frozen=True)
class Config(HeadsConfig):
    """Certified fair heads on features."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "datasets": ("compas",), "counts": (1, 100), "private_steps": 100},
        "paper": {"repeats": 5},
    }

    features: tuple[Literal["raw", "frozen", "private"], ...] = ("raw", "frozen", "private")
    """Features on which the head is trained."""
    width: cli.Count = 16
    """Number of hidden units."""
    extractor_epsilon: cli.Positive = 1.0
    """Epsilon of the private extractor for one row."""
    private_steps: cli.Count = 300
    """Number of steps of DP-SGD."""


def rows_of(config: Config, *, dataset: str, features: str, seed: int) -> list[Row]:
    """All removals from one head."""
    split = problems.load_split(config, dataset, seed)
    chosen = fmu_jax.forget_sets.split_public(len(split.train.y), config.public, seed=seed)
    public, own = (fmu_jax.data.select_rows(split.train, rows) for rows in chosen)
    options: dict[str, Any] = {name: getattr(config, name) for name in ("width", "l2", "delta")}
    options |= {"epsilon": config.extractor_epsilon, "steps": config.private_steps}
    key = jax.random.fold_in(jax.random.key(seed), 1)
    found = fmu_jax.networks.head_rows(features, public, own, split.test, key=key, **options)
    return removals(config, *found, seed)


def removals(config: HeadsConfig, train: Any, test: Any, price: tuple[float, float], seed: int) -> list[Row]:
    """One head, or one for each class, and every removal from it; ``price`` is of its features, for one row."""
    noise = problems.noise_of(jnp.zeros((*train.y.shape[:-1], train.x.shape[1])), seed, config.sigma)
    how = {name: getattr(config, name) for name in ("sigma", "delta", "counts")} | {"noise": noise, "seed": seed}
    table = fmu_jax.removal_tables.heads_table(config.objective(), train, test, price, **how)
    if not table:
        counts = ", ".join(map(str, config.counts))
        raise ValueError(f"--counts: none of {counts} rows can be removed from {len(train.weight)}")
    return table


def draw(config: HeadsConfig, table: list[Row]) -> None:
    """Draw two figures a data set: measures by features against the number of rows removed."""
    for dataset, part in report.groups(table, "dataset").items():
        axis = {"x": "rows_removed", "xlabel": "rows removed", "log": ("distance", "total_epsilon"), "log_x": True}
        title, stem = plot.look(dataset).label, config.out / f"embeddings_{dataset}"
        plot.grids(part, stem, FIGURES, across="features", title=title, **axis)


def most_removed(results: Results) -> list[Row]:
    """The rows of fair Newton and the largest number of removed rows."""
    most = max(row["rows_removed"] for row in results.rows)
    return report.where(results.rows, method="fair_newton", rows_removed=most)


def section(results: Results) -> list[report.Block]:
    """The heads after the largest removal."""
    table = most_removed(results)
    columns = looks.titled("accuracy", "equalized_odds_mean", "distance", head_epsilon="epsilon of the head")
    columns |= looks.titled(total_epsilon="epsilon in all")
    return [
        "A network has no certificate, but a linear head on its features has one. Frozen features come from rows "
        "that nobody asks to remove. Private features come from the head's own rows, by differentially private "
        "training, whose epsilon counts once for every removed row.",
        report.Table(report.medians(table, ("dataset", "features"), columns),
                     f"After {table[0]['rows_removed']} rows are forgotten by fair Newton (test rows)."),
        *results.figures("embeddings_*.png", "Accuracy, odds gap, distance to the retrained head and epsilon against "
                         "the number of rows, by features", "Heads on features, against the number of rows removed."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Are deletions from heads on features certified?"""
    epsilons = [row["total_epsilon"] for row in most_removed(results) if row["features"] in ("raw", "frozen")]
    text = "Deep models: deletions from fair heads on frozen features are certified (shown: epsilon below 1)."
    return [Claim(text, [epsilon < 1 for epsilon in epsilons], f"epsilon at most {max(epsilons):.2g}")]


SMALL = {"datasets": ("compas",), "counts": (1, 100), "private_steps": 100, "repeats": 1}
EXPERIMENT = Experiment(
    "fmu_embeddings", Config, rows_of, draw=draw, heading="Deep models: certified heads on features",
    section=section, claims=claims, x64=True,
    parts=(Part({"none": SMALL, "quick": {"repeats": 1}, "full": SMALL, "paper": {"repeats": 1}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
