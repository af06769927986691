"""Does unlearning from networks work? U-LiRA and KLoM of each method against retrained networks, on two MLPs.

    python -m scripts.fmu.deep_audit --out runs/deep_audit

Noisy fine-tuning around a fixed initialisation has a certificate that no attack may beat; ``fake`` claims the same, and
U-LiRA must catch it. ``fmu_jax.audit.network_table`` has audits, ``uncertified_methods`` and ``noisy_methods`` the
methods. Networks learn income from Adult's columns, or from Fashion-MNIST, averaged to 14 x 14, whether a garment is
for the upper body; there the group is artificial (brighter or not). Each data set, seed and method has one row.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, get_args

from scripts.fmu import audit, problems
from scripts.harness import cli, plot, report
from scripts.harness.experiment import Experiment, Results, Row
from scripts.harness.lazy import fmu_jax, jax

#: What noisy fine-tuning promises.
MU = 0.5
Method = Literal[
    "fair_newton", "gauss_newton", "last_layer", "influence", "descent", "finetune", "gradient_ascent", "scrub",
    "noisy", "noisy_repaired", "noisy_blocks", "fake",
]  # fmt: skip
SHOWN = {name: audit.ATTACKS[name] for name in ("lira_auc", "klom")} | {
    "accuracy": ("Utility", "accuracy (test)", None),
    "equalized_odds_mean": ("Fairness", "average odds gap (test)", None),
}


@dataclass(frozen=True)
class Config(problems.NetworkConfig):
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
    pairs: cli.Count = 48
    """Number of pairs of networks; each is trained on half of the training rows."""
    planted: cli.Count = 10
    """Number of planted rows that each network is trained on and unlearns."""
    canaries: cli.Count = 200
    """Number of mislabelled rows in the audit of one network; it is trained on each with probability 1/2."""


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """Each method's row."""
    rows, test = problems.load_rows(config, dataset, seed)
    model, audits = fmu_jax.networks.Mlp(config.width), fmu_jax.audit
    objective = config.objective(predict=model.apply)
    center = model.init(jax.random.key(0), rows.x[:1])
    certified = audits.noisy_methods(objective, center, mu=MU, dtype=rows.x.dtype)
    known = audits.uncertified_methods(config.rows / 2) | certified
    options = {"steps": config.train_steps, "learning_rate": config.learning_rate}
    return audits.network_table(
        objective, rows, test, train=partial(fmu_jax.networks.train_adam, objective, model, **options),
        methods={name: known[name] for name in config.methods}, claims=dict.fromkeys(certified, MU),
        planted=config.planted, canaries=config.canaries, pairs=config.pairs,
        key=jax.random.fold_in(jax.random.key(seed), 3),
    )  # fmt: skip


def draw(config: Config, table: list[Row]) -> None:
    """Draw attacks, accuracy and fairness of each method."""
    plot.attacks(table, config.out / "deep_audit.png", SHOWN)


def section(results: Results) -> list[report.Block]:
    """Every method on every data set."""
    columns = {name: title for name, (title, _, _) in SHOWN.items()}
    return [
        f"Only noisy fine-tuning has a certificate, whose mu = {MU} allows an AUC of 0.638; of others attacks are the "
        "evidence. U-LiRA has 0.5 by chance. KLoM is the distance to plain retraining, which no certificate promises.",
        report.Table(report.medians(results.rows, ("dataset", "method"), columns),
                     "Attacks on planted rows, accuracy and odds gap (test rows)."),
        *results.figures("deep_audit.png", "Success of two attacks, accuracy and odds gap by method"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_deep_audit", Config, rows_of, draw=draw, heading="Unlearning from networks", section=section, x64=True
)
EXPERIMENT.run_as(__name__)
