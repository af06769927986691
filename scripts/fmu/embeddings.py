"""Certified fair heads on MLP features, beside the linear model on the raw columns.

    python -m scripts.fmu.embeddings --out runs/embeddings

After the authors' embedding experiments (their loaders' ``private_embeddings``: features of an MLP trained by L-BFGS,
whose files were not published, so that numbers cannot be compared). Some training rows are public: nobody asks to
remove them. The head is trained on the others and forgets some of them. Its features are the "raw" columns, the hidden
units of an MLP trained by L-BFGS on the public rows ("frozen"), or those of an MLP trained by DP-SGD on the head's own
rows ("private"), whose epsilon is added to the head's for each removed row. Differs from the original:
rows are scaled one by one (D15), where the original divides by the largest norm of training rows (and test rows by that
of rows scaled already). It takes one to two minutes on two cores. Each data set, kind of features, seed, number of rows
removed and method has one row.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scripts.fmu import problems
from scripts.harness import cli, looks, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax, jnp

METHODS = ("retrain", "no_removal", "fair_newton", "newton", "influence")
#: The measures of each figure, with what they are called.
FIGURES = {
    "utility": {"accuracy": "accuracy (test)", "equalized_odds_mean": "average odds gap (test)"},
    "certificates": {"distance": "distance to the retrained head", "total_epsilon": "epsilon, features and head"},
}
Features = Literal["raw", "frozen", "private"]


@dataclass(frozen=True)
class HeadsConfig(problems.CertifiedConfig):
    """Flags of every script on certified heads."""

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
    AXES: ClassVar = {"dataset": "datasets", "features": "features"}

    repeats: cli.Count = 1
    features: tuple[Features, ...] = ("raw", "frozen", "private")
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
    objective = fmu_jax.Objective(l2=config.l2, fairness=config.fairness)
    train, test, price = embed(config, features, split.train, split.test, seed)
    noise = problems.noise_of(train.x[0], seed, config.sigma)
    return removals(config, objective, train, test, noise, price, seed)


def removals(
    config: HeadsConfig, objective: Any, train: Any, test: Any, noise: Any, price: tuple[float, float], seed: int
) -> list[Row]:
    """One head, or one for each class, and every removal from it; ``price`` is of its features, for one row."""
    before, n = fmu_jax.heads.fit_head(objective, train, noise=noise).params, len(train.weight)
    table = []
    for count in config.counts:
        # Of many classes the first stands for all here; the head itself refuses to empty any of them.
        rows = fmu_jax.forget_sets.draw_rows(train._replace(y=train.y.reshape(-1, n)[0]), count, seed=seed)
        if rows is None:
            continue
        retrained = None
        for method in METHODS:
            row, params = one_removal(config, objective, before, train, test, rows, noise, method, price)
            retrained = params if retrained is None else retrained
            about = {"rows_removed": count, "train_rows": n, "method": method}
            table.append(about | {"distance": problems.distance(params, retrained)} | row)
    if not table:
        raise ValueError(f"--counts: none of {', '.join(map(str, config.counts))} rows can be removed from {n}")
    return table


def embed(config: Config, features: str, train: Any, test: Any, seed: int) -> tuple[Any, Any, tuple[float, float]]:
    """The head's training rows, the test rows, and the extractor's (epsilon, delta) for one row."""
    order = np.random.default_rng([seed, 5]).permutation(len(train.y))
    public = round(config.public * len(order))
    known, own = (jax.tree.map(lambda leaf, at=at: leaf[at], train) for at in (order[:public], order[public:]))
    if features == "raw":
        return own, test, (0.0, 0.0)
    model = fmu_jax.networks.Mlp(config.width, jnp.float64)
    for_init, for_noise = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    params, price = model.init(for_init, train.x[:1]), (0.0, 0.0)
    if features == "frozen":
        params = fmu_jax.networks.frozen_features(model, known, l2=config.l2, init=params)
    else:
        spent = {"epsilon": config.extractor_epsilon, "delta": config.delta, "steps": config.private_steps}
        found = fmu_jax.networks.private_features(model, own, init=params, key=for_noise, **spent)
        params, price = found.params, (found.epsilon, found.delta)

    def rows(data: Any) -> Any:
        hidden = jnp.asarray(model.apply(params, data.x, method="hidden"))
        return data._replace(x=fmu_jax.heads.as_rows(hidden, radius=config.width**0.5))

    return rows(own), rows(test), price


def one_removal(config: HeadsConfig, objective, before, train, test, rows, noise, method, price) -> tuple[Row, Any]:
    """Forget rows by one method: its row and its parameters."""
    heads = fmu_jax.heads
    if method == "no_removal":
        return measured(before, test), before
    removal = heads.remove_head(objective, before, train, rows, noise=noise, method=method, allow_unfair=True)
    row = measured(removal.params, test)
    if config.sigma > 0:
        head = heads.certify_head(objective, before, removal, sigma=config.sigma, delta=config.delta, noise=noise)
        whole = heads.with_features(head, epsilon=price[0], delta=price[1], rows=len(rows))
        row |= {"residual_norm": float(head.residual_norm), "head_epsilon": float(head.epsilon)}
        row |= {"total_epsilon": float(whole.epsilon), "total_delta": float(whole.delta)}
        row |= {"extractor_epsilon": price[0], "local_distance_bound": float(head.local_distance_bound)}
    return row, removal.params


def measured(params: Any, test: Any) -> Row:
    """Metrics of a head on the test rows."""
    label, metrics = fmu_jax.heads.predict_head(params, test.x), fmu_jax.metrics
    if params.ndim == 1:
        return metrics.columns(metrics.group_metrics(label, test))
    return metrics.metrics_of_classes(label, test)


def draw(config: HeadsConfig, table: list[Row]) -> None:
    """Draw two figures a data set: measures by features against the number of rows removed."""
    for dataset, part in report.groups(table, "dataset").items():
        part = [row if row["method"] != "retrain" else row | {"distance": None} for row in part]
        for name, shown in FIGURES.items():
            plot.grid(
                part, config.out / f"embeddings_{dataset}_{name}.png", x="rows_removed", measures=shown,
                across="features", title=plot.look(dataset).label, xlabel="rows removed", log_x=True,
                log=("distance", "total_epsilon"),
            )  # fmt: skip


def most_removed(results: Results) -> list[Row]:
    """The rows of fair Newton and the largest number of removed rows."""
    return report.where(
        results.rows, method="fair_newton", rows_removed=max(row["rows_removed"] for row in results.rows)
    )


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
    return [Claim("Deep models: deletions from fair heads on frozen features are certified (shown: epsilon "
                  "below 1).", [e < 1 for e in epsilons],
                  f"epsilon at most {max(epsilons):.2g}")]  # fmt: skip


SMALL = {"datasets": ("compas",), "counts": (1, 100), "private_steps": 100, "repeats": 1}
EXPERIMENT = Experiment(
    "fmu_embeddings", Config, rows_of, draw=draw, heading="Deep models: certified heads on features",
    section=section, claims=claims, x64=True,
    parts=(Part({"none": SMALL, "quick": {"repeats": 1}, "full": SMALL, "paper": {"repeats": 1}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
