"""Does unlearning from networks work? U-LiRA and KLoM of each method against retrained networks, on two MLPs.

    python -m scripts.fmu.deep_audit --out runs/deep_audit

Nothing certifies a Newton step or a baseline on a network, so attacks are the only evidence about them. Noisy
fine-tuning (mu = 0.5 around a fixed initialisation, by noise alone) has a certificate: no attack may reach a larger AUC
for a row than ``Phi(mu / sqrt 2)``. It is measured as published, and after repair by the steps of ``finetune``;
``noisy_blocks`` adds its noise to one layer after the other; ``fake`` claims the same guarantee with a thousandth of
the noise around a model that it does not clip, and must be caught. Each method is audited once more on a single network
that learnt and deleted half of some mislabelled canaries (``one_run``). Adult: income from all columns, protected
attribute as configured. Fashion-MNIST (the bundled subset, averaged to 14 x 14): the label says whether a garment is
for the upper body (T-shirt, pullover, coat, shirt, dress); the group is artificial (whether an image is brighter than
the median), so that there is a fairness penalty. Networks have one hidden layer of tanh units and are trained by
full-batch Adam for a fixed number of steps, each from its own initialisation; planted rows are held-out rows with
either label. It takes minutes on two cores. There is one row for each data set, seed and method.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from scripts.fmu import problems
from scripts.harness import cli, plot, report
from scripts.harness.experiment import Experiment, Results, Row
from scripts.harness.lazy import fmu_jax, jax, jnp, pags_jax

UPPER_BODY = (0, 2, 3, 4, 6)
#: What noisy fine-tuning promises.
MU = 0.5
SOLVER = {"tolerance": 1e-3, "max_steps": 200}
#: What is audited: options of ``remove``.
METHODS: dict[str, dict[str, Any]] = {
    "fair_newton": {"method": "fair_newton", **SOLVER},
    "gauss_newton": {"method": "fair_newton", "gauss_newton": True, **SOLVER},
    "last_layer": {"method": "fair_newton", "only": "last", **SOLVER},
    "influence": {"method": "influence", **SOLVER},
    "descent": {"method": "descent", "steps": 50},
    "finetune": {"method": "finetune", "steps": 50},
    "gradient_ascent": {"method": "gradient_ascent", "steps": 50},
    "scrub": {"method": "scrub", "steps": 50},
}
Method = Literal[
    "fair_newton", "gauss_newton", "last_layer", "influence", "descent", "finetune", "gradient_ascent", "scrub",
    "noisy", "noisy_repaired", "noisy_blocks", "fake",
]  # fmt: skip
SHOWN = {
    "lira_auc": ("U-LiRA", "area under the curve", 0.5),
    "klom": ("KLoM", "divergence from retrained", 0.0),
    "accuracy": ("Utility", "accuracy (test)", None),
    "equalized_odds_mean": ("Fairness", "average odds gap (test)", None),
}


@dataclass(frozen=True)
class Config(problems.ProblemConfig):
    """Audit removal from networks."""

    PRESETS: ClassVar = {
        "quick": {"datasets": ("adult",), "pairs": 8, "rows": 600, "train_steps": 100, "canaries": 40},
        "paper": {"pairs": 512, "rows": 8000, "repeats": 3},
    }

    datasets: tuple[Literal["adult", "fashion_mnist"], ...] = ("adult", "fashion_mnist")  # pyright: ignore[reportIncompatibleVariableOverride]
    """Data sets."""
    methods: tuple[Method, ...] = get_args(Method)
    """Methods to audit beside retraining and no removal."""
    repeats: cli.Count = 1
    l2: cli.Positive = 1e-3
    pairs: cli.Count = 48
    """Number of pairs of networks."""
    rows: cli.Count = 1000
    """Number of training rows; each pair of networks is trained on half of them."""
    planted: cli.Count = 10
    """Number of planted rows that each network is trained on and unlearns."""
    canaries: cli.Count = 200
    """Number of mislabelled rows in the audit of one network; it is trained on each with probability 1/2."""
    width: cli.Count = 16
    """Number of hidden units."""
    train_steps: cli.Count = 200
    """Number of steps of Adam."""
    learning_rate: cli.Positive = 0.02
    """Adam's learning rate."""


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """Each method's row."""
    train_rows, test = load(config, dataset, seed)
    model, audit = fmu_jax.networks.Mlp(config.width), fmu_jax.audit
    objective = fmu_jax.Objective(l2=config.l2, fairness=config.fairness, predict=model.apply)
    for_rows, for_models = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3))
    planted = audit.twins(test, config.planted, key=for_rows)
    options = {"steps": config.train_steps, "learning_rate": config.learning_rate}
    train = partial(fmu_jax.networks.train_adam, objective, model, **options)
    center = model.init(jax.random.key(0), train_rows.x[:1])
    size = sum(leaf.size for leaf in jax.tree.leaves(center))
    honest = fmu_jax.noisy_finetuning.Schedule(start_clip=0.1, noise=1.0)
    honest = fmu_jax.noisy_finetuning.noise_for(honest, mu=MU, size=size, dtype=train_rows.x.dtype)
    fake = dataclasses.replace(honest, start_clip=1e3, noise=honest.noise / 1000)
    noisy = {
        name: partial(noisy_network, objective, center, schedule=schedule, steps=steps)
        for name, schedule, steps in (("noisy", honest, 0), ("noisy_repaired", honest, 50), ("fake", fake, 0))
    }
    noisy["noisy_blocks"] = partial(noisy_blocks, objective, center, schedule=honest)
    # Sum form: a step of 1 / n is one of the mean objective.
    descent = METHODS["descent"] | {"step_size": 0.5 / (config.rows / 2)}
    every = METHODS | {"descent": descent} | noisy
    chosen = {name: every[name] for name in config.methods}
    shadow = audit.shadow_networks(
        objective, train_rows, planted, test, train=train, methods=chosen, key=for_models, pairs=config.pairs
    )
    canaries = audit.mislabelled(test, config.canaries, key=jax.random.fold_in(for_rows, 1))
    scored = audit.score_canaries(
        objective, train_rows, canaries, train=train, methods=chosen, key=jax.random.fold_in(for_models, 1)
    )
    table = []
    for method, margins in shadow.margins.items():
        row = audit.attack_columns(margins, shadow.member, shadow.oracle)
        row |= {"margin_shift": jnp.abs(audit.by_membership(margins, shadow.member)[0] - shadow.oracle).mean()}
        row |= {name: getattr(shadow.metrics[method], name).mean() for name in ("accuracy", "equalized_odds_mean")}
        if method in noisy:
            bound = float(jax.scipy.stats.norm.cdf(MU / 2**0.5))
            row |= {"certified_auc": bound, "beyond": row["lira_auc"] > bound}
        if method in scored.scores:  # Retraining never saw a canary.
            once = audit.one_run(scored.scores[method], scored.inside, delta=1e-5)
            row |= {f"one_run_{name}": value for name, value in once._asdict().items()}
        row |= {"converged": shadow.converged[method].astype(jnp.float32).mean()}
        table.append({"method": method} | {name: float(value) for name, value in row.items()})
    return table


def noisy_network(objective, center, params, rows: Any, forget, key, *, schedule, steps: int) -> Any:
    """Noisy fine-tuning around ``center``, and a repair without noise."""
    found = fmu_jax.noisy_finetuning.finetune(
        objective, params, rows, forget, schedule=schedule, key=key, center=center
    )
    if steps == 0:
        return found.params
    return fmu_jax.remove(objective, found.params, rows, forget, method="finetune", steps=steps).params


def noisy_blocks(objective, center, params, rows: Any, forget, key, *, schedule) -> Any:
    """The same noise in one layer after the other, the rest repaired in between."""
    names = list(center["params"])
    return fmu_jax.noisy_finetuning.finetune_blocks(
        objective, params, rows, forget, blocks=names, start_clip=schedule.start_clip / len(names) ** 0.5,
        noise=schedule.noise, key=key, center=center,
    ).params  # fmt: skip


def load(config: Any, dataset: str, seed: int) -> tuple[Any, Any]:
    """Rows to train on and test rows, ``config.rows`` of each at most, float32."""
    if dataset != "fashion_mnist":
        split = problems.load_split(config, dataset, seed)
        train, test = split.train, split.test
    else:
        bundled = pags_jax.datasets.load("fashion_mnist")
        train, test = (_garments(*part) for part in (bundled[:2], bundled[2:4]))
    rng = np.random.default_rng([seed, 7])
    chosen = [rng.permutation(len(part.y))[: config.rows] for part in (train, test)]
    parts = (jax.tree.map(lambda leaf, at=at: leaf[at], part) for part, at in zip((train, test), chosen, strict=True))
    first, second = (part._replace(x=part.x.astype("float32"), weight=part.weight.astype("float32")) for part in parts)
    return first, second


def _garments(x, labels) -> Any:
    pooled = np.asarray(x, np.float32).reshape(len(x), 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(x), -1) / 255
    bright = pooled.mean(axis=1) > np.median(pooled.mean(axis=1))
    return fmu_jax.make_data(pooled, np.isin(labels, UPPER_BODY).astype(int), bright.astype(int))


def draw(config: Config, table: list[Row]) -> None:
    """Draw attacks, accuracy and fairness of each method."""
    plot.attacks(table, config.out / "deep_audit.png", SHOWN)


def section(results: Results) -> list[report.Block]:
    """Every method on every data set."""
    columns = {name: title for name, (title, _, _) in SHOWN.items()}
    return [
        f"Only noisy fine-tuning has a certificate here. Its mu = {MU} allows an AUC of 0.638. For all other methods "
        "there is no evidence but what attacks find. Chance is 0.5 for U-LiRA and 0 for KLoM.",
        report.Table(report.medians(results.rows, ("dataset", "method"), columns),
                     "Attacks on planted rows, accuracy and odds gap (test rows)."),
        *results.figures("deep_audit.png", "Success of two attacks, accuracy and odds gap by method"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_deep_audit", Config, rows_of, draw=draw, heading="Unlearning from networks", section=section, x64=True
)
EXPERIMENT.run_as(__name__)
