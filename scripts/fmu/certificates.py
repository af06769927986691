"""The epsilon of a removal, by our bounds and the paper's, against the share removed, sigma and delta.

    python -m scripts.fmu.certificates --out runs/certificates

See Oesterling et al. (2024), figure 5 and appendix. Each data set, seed, sigma, fraction and delta has one row.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.fmu import problems
from scripts.harness import cli, looks, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax

BOUNDS = ("residual_norm", "row_bound", "gram_bound", "paper_data_dependent", "paper_worst_case")
COLUMNS = {name: plot.look(name).label for name in BOUNDS}
COLUMNS |= {"epsilon_residual_norm": "epsilon", "epsilon_paper_data_dependent": "epsilon, paper"}


@dataclass(frozen=True)
class Config(problems.ProblemConfig):
    """Certify random removals under many noise levels and failure probabilities."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "sigmas": (0.1, 1.0, 10.0)},
        "paper": {"sigmas": tuple(10.0**k for k in range(-4, 5)), "deltas": (1e-4, 1e-3, 1e-2, 1e-1)},
    }
    AXES: ClassVar = {"dataset": "datasets", "sigma": "sigmas"}

    sigmas: tuple[cli.Positive, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Standard deviations of the objective perturbation."""
    deltas: tuple[cli.Probability, ...] = (1e-5, 1e-3, 1e-1)
    """Failure probabilities."""
    fractions: tuple[cli.Share, ...] = (0.001, 0.01, 0.05, 0.2)
    """Shares of the training rows to forget at random."""
    shown_fraction: cli.Share = 0.01
    """Share removed in the figure of epsilon against sigma; one of --fractions."""
    shown_sigma: cli.Positive = 1.0
    """Sigma in the figure of the bounds against the share removed; one of --sigmas."""

    def units(self) -> list[dict[str, Any]]:
        """As of every experiment; what the figure shows must be measured."""
        for name in ("fraction", "sigma"):
            shown, among = getattr(self, f"shown_{name}"), getattr(self, f"{name}s")
            if shown not in among:
                raise ValueError(f"--shown-{name}: {shown} is not measured; choose one of {', '.join(map(str, among))}")
        return super().units()


def rows_of(config: Config, *, dataset: str, sigma: float, seed: int) -> list[Row]:
    """Certificates of one trained model's removals."""
    train, _, objective, noise, fitted = problems.train_problem(config, dataset, seed, sigma=sigma)
    how = {"noise": noise, "sigma": sigma, "deltas": config.deltas, "fractions": config.fractions, "seed": seed}
    return fmu_jax.removal_tables.bounds_table(objective, fitted.params, train, **how)


def draw(config: Config, table: list[Row]) -> None:
    """Draw bounds against the share removed, and epsilon against sigma, one row of panels a data set."""
    delta, sigma, fraction = config.deltas[0], config.shown_sigma, config.shown_fraction
    about = f"bounds at sigma = {sigma:g}", f"{fraction:.1%} removed"
    titles = [f"{plot.look(name).label}, {title}" for name in config.datasets for title in about]
    with plot.panels(config.out / "certificates.png", titles, 2, legend=3) as axes:
        for left, right, dataset in zip(axes[::2], axes[1::2], config.datasets, strict=True):
            part = report.where(table, dataset=dataset, delta=delta)
            for name in BOUNDS:
                plot.lines(left, report.where(part, sigma=sigma), x="fraction", y=name, series=name)
                plot.lines(right, report.where(part, fraction=fraction), x="sigma", y=f"epsilon_{name}", series=name)
            left.set(xscale="log", yscale="log", xlabel="share removed", ylabel="bound on the residual")
            right.set(xscale="log", yscale="log", xlabel="sigma", ylabel=f"epsilon (delta = {delta:g})")
            right.axhline(1, color="0.5", linewidth=0.8)


def shown(results: Results) -> list[Row]:
    """The rows of the smallest delta and of the sigma nearest to 1."""
    sigma, delta = problems.nearest(results.rows, "sigma", 1), min(row["delta"] for row in results.rows)
    return report.where(results.rows, sigma=sigma, delta=delta)


def section(results: Results) -> list[report.Block]:
    """Bounds side by side."""
    table = shown(results)
    return [
        "If the gradient of the remaining objective at the unlearned parameters is smaller, less noise hides the "
        "removal. Our bounds hold from any start. The paper's bounds hold from a converged start only, and its worst "
        "case is for one removed row. Every epsilon divides by sigma (Guo et al. 2020).",
        report.Table(report.medians(table, looks.titled("dataset", fraction="share removed"), COLUMNS), digits=3,
                     caption="Bounds on the residual gradient (sum form) and the epsilon of the exact residual and of "
                     f"the paper's bound; sigma = {table[0]['sigma']:g}, delta = {table[0]['delta']:g}, random rows."),
        *results.figures("certificates.png", "Bounds on the residual against the share removed, and epsilon against "
                         "sigma", "Our bounds and the paper's, on the same removals."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Is a removal certified at a small epsilon, and how far below the paper's bound?"""
    table = report.where(shown(results), fraction=min(row["fraction"] for row in results.rows))
    share = f"{table[0]['fraction']:.1%}"
    small = [row["epsilon_residual_norm"] for row in table]
    ratio = [row["paper_data_dependent"] / max(row["residual_norm"], 1e-300) for row in table]
    return [
        Claim(f"Unlearning is certified at a useful epsilon (shown: below 1 at sigma = {table[0]['sigma']:g} "
              f"when {share} of the rows are forgotten).", [epsilon < 1 for epsilon in small],
              f"epsilon at most {max(small):.1e}; the paper's data-dependent bound is "
              f"{report.span(ratio)} times the exact residual"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_certificates", Config, rows_of, draw=draw, heading="Certificates: what a removal costs",
    section=section, claims=claims, x64=True,
    parts=(Part({"none": {"deltas": (1e-5,)}, "quick": {}, "full": {}, "paper": {}}, seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
