"""Does a model look at the signal or at the distractor beside it? Noise on either half shows it.

    python -m scripts.pags.train --dataset distractor --loss cross_entropy gradient_norm --out runs/distractor
    python -m scripts.pags.distractor --trained runs/distractor --out runs/pags_distractor

See Srinivas et al. (2023), figure 5. There is one row for each model and noise level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.harness import cli, compiling, placement, report
from scripts.harness.experiment import Claim, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import accuracy, measuring


@dataclass(frozen=True)
class Config(measuring.MeasuringConfig):
    """Compare noise on the signal with noise on the distractor."""

    PRESETS: ClassVar = {"quick": {"images": 100, "draws": 1, "sigmas": (0.1, 0.5)}, "paper": {"images": 1000}}

    images: cli.Count = 500
    sigmas: tuple[cli.Positive, ...] = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    """Standard deviations of the noise, for images in [0, 1]; both halves are equally large."""
    draws: cli.Count = 4
    """Number of noise draws to average over for each image."""


def setup(config: Config) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, where their signal is, and noise, which all models are measured with."""
    sample = measuring.sample(config)
    if sample.mask is None:
        found = f"the models in {config.trained} are of images without a distractor"
        raise ValueError(f"--trained: {found}; train with --dataset distractor")
    noise = jax.random.normal(jax.random.key(config.seed), (config.draws, *sample.x.shape), sample.x.dtype)
    return sample.x, sample.mask, noise


def rows_of(config: Config, ready: tuple[Any, ...], _: dict[str, Any], apply_fn: Any) -> list[Row]:
    """Mean deviations of one model over the images of which both are finite, and their ratio, a row for each noise."""
    table, x, (mask, noise) = [], placement.rows(ready[0]), placement.everywhere(ready[1:])
    deviation = compiling.jitted(pags_jax.robustness.relative_noise_robustness)
    for sigma in config.sigmas:
        moved = {
            part: deviation(apply_fn, x, where, noise=noise, sigma=jnp.float32(sigma))
            for part, where in (("signal", mask), ("distractor", ~mask))
        }
        row = pags_jax.means.means_of({"sigma": sigma, **placement.on_host(moved)})
        on, off = row["signal"], row["distractor"]
        table.append(row | {"ratio": on / off if on is not None and off else None})
    return table


def section(results: Results) -> list[report.Block]:
    """The ratio of each model at each noise."""
    columns = {"test_accuracy": "accuracy"}
    table = [row | {f"sigma {row['sigma']:g}": row["ratio"]} for row in results.rows]
    columns |= {f"sigma {sigma:g}": f"sigma {sigma:g}" for sigma in sorted({row["sigma"] for row in table})}
    return [
        "Each image stands beside a letter that is independent of its class. A model that uses the signal alone "
        "reacts more to noise on the image than to equal noise on the letter.",
        report.Table(report.medians(table, {"loss": "loss", "strength": "strength"}, columns),
                     "Change of the probabilities under noise on the signal, divided by the change under noise on "
                     "the distractor, by the noise's standard deviation for pixels in [0, 1].", digits=3),
        *results.figures("distractor.png", "Ratio of signal to distractor against the noise, and both parts",
                         "The paper's figure 5.", part="pags_figures"),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Does robust training turn the model from the distractor to the signal?"""
    sigmas = sorted({row["sigma"] for row in results.rows})
    sigma = sigmas[len(sigmas) // 2]
    text = "Robust models react to the signal more than to a distractor beside it, compared with an undefended model."
    table, number = report.where(results.rows, sigma=sigma), f"ratio at sigma {sigma:g}: "
    return [accuracy.beyond_undefended(text, table, "ratio", "{:.2f}", number)]


EXPERIMENT = measuring.experiment(
    "pags_distractor", Config, setup=setup, rows_of=rows_of, heading="Signal and distractor", section=section,
    claims=claims,
    parts=(Part({"none": {"images": 200, "draws": 2}, "quick": {}, "full": {}, "paper": {}},
                reads={"trained": "pags_distractor_train"}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
