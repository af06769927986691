"""How much the input gradients of the models of a training run look like the score of a generative model.

    python -m scripts.pags.alignment --trained runs/pags_train --out runs/pags_alignment

Srinivas et al. (2023), the models of section 5. There is one row for each model and pair of gradient and score, with
the cosine, 1 - LPIPS, and the share of the gradient that is off the data manifold; ``values/`` has the values of all
images. ``scores_SIGMA.npz`` and ``gradients/`` keep the maps of a few images. A model trained under noise of standard
deviation s, in [0, 1], approximates the Bayes classifier of images with the noise 2 s in [-1, 1]: such models are also
compared at all of these noise levels that the run has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np

from scripts.harness import cli, compiling, names, placement, plot, report, store
from scripts.harness.experiment import Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import manifolds, measuring
from scripts.pags.robustness import FILES, NAMED
from scripts.pags.sweeps import SHOWN, SMOOTHED


@dataclass(frozen=True)
class Config(manifolds.ManifoldConfig):
    """Measure the alignment of gradients with scores."""

    PRESETS: ClassVar = {
        "quick": {"images": 50, "sigmas_pm1": (0.5,)},
        "paper": {"images": 1000},
        "cifar10": {"images": 500},
    }

    sigmas_pm1: tuple[cli.Positive, ...] = (0.5, 1.0, 2.0)
    """Noise levels of the score, for images in [-1, 1]; the paper uses 0.5 for CIFAR-10 and 1.2 for ImageNet-64."""
    shown: cli.Count = 6
    """Number of images whose gradients and scores are stored for figures."""


class Ready(NamedTuple):
    """Images, tangent spaces and scores that all models are measured with."""

    sample: measuring.Sample
    basis: jax.Array
    mask: jax.Array | None
    scores: dict[float, dict[str, jax.Array]]
    ranks: Row


def files_of(config: Config, table: list[Row]) -> dict[str, Path]:
    """The files that tangent spaces and scores come from."""
    return manifolds.files_of(config, table, scores=True)


def setup(config: Config, table: list[Row]) -> Ready:
    """Images, their tangent spaces and their scores at every noise level."""
    sample = measuring.sample(config, table)
    denoisers, mask = manifolds.denoisers(config, sample), manifolds.mask_of(config, sample)
    basis = manifolds.restricted(mask, manifolds.basis_of(config, sample))
    levels = dict.fromkeys((*config.sigmas_pm1, *noise_levels(table)))
    maps = {sigma: within(mask, scores_of(denoisers, sample, sigma)) for sigma in levels}
    return Ready(sample, basis, mask, maps, manifolds.ranks_of(basis, mask))


def keep(config: Config, ready: Ready) -> None:
    """Keep a few scores, for figures."""
    for sigma, kinds in ready.scores.items():
        arrays = {"x": ready.sample.x, "y": ready.sample.y, **kinds}
        save_first(config.out / f"scores_{sigma:g}.npz", arrays, config.shown)


def rows_of(config: Config, ready: Ready, unit: dict[str, Any], apply_fn: Any) -> list[Row]:
    """One model's comparisons: each gradient with its score at each noise level."""
    sample, own = ready.sample, [sigma for sigma in ready.scores if sigma not in config.sigmas_pm1]
    x, (y, scores, basis) = placement.rows(sample.x), placement.everywhere((sample.y, ready.scores, ready.basis))
    levels = [*config.sigmas_pm1, *(own if unit["loss"] == SMOOTHED else ())]
    gradient_of = compiling.jitted(pags_jax.gradients.input_gradients, "target")
    gradients = {target: gradient_of(apply_fn, x, y, target=target) for target in get_args(names.Target)}
    gradients = within(ready.mask, gradients)
    save_first(config.out / "gradients" / f"{store.unit_name(unit)}.npz", gradients, config.shown)
    return [
        row_of(gradient, target, sigma, scores[sigma], basis) | ready.ranks
        for sigma in levels
        for target, gradient in gradients.items()
    ]


def scores_of(denoisers: tuple[Any, Any], sample: measuring.Sample, sigma: float) -> dict[str, jax.Array]:
    """The scores of the images at a noise level by kind: of all images, of their class, and their difference."""
    score_of = compiling.jitted(pags_jax.scores.score)
    unconditional, conditional = (score_of(denoise, sample.x, sigma_pm1=jnp.float32(sigma)) for denoise in denoisers)
    return {"unconditional": unconditional, "conditional": conditional, "bayes": conditional - unconditional}


def within(mask: jax.Array | None, maps: Any) -> Any:
    """Maps by name, set to zero outside the mask if there is one."""
    return maps if mask is None else {name: jnp.where(mask, values, 0) for name, values in maps.items()}


def row_of(gradient: jax.Array, target: Any, sigma: float, scores: dict[str, jax.Array], basis: jax.Array) -> Row:
    """Values of the images; they are NaN where a map is zero or infinite."""
    kind = pags_jax.alignment.PAIRINGS[target]
    share = compiling.jitted(pags_jax.robustness.off_manifold_share, images=False)(gradient, basis)
    cosine, similarity, share = placement.on_host((*manifolds.compare(gradient, scores[kind]), share))
    place = {"target": target, "sigma_pm1": sigma, "score": kind}
    return place | {"cosine": cosine, "similarity": similarity, "off_share": share}


def noise_levels(table: list[Row]) -> list[float]:
    """The noise levels that models were trained under, for images in [-1, 1]."""
    return sorted({2 * row["strength"] for row in table if row["loss"] == SMOOTHED and row["strength"] > 0})


def save_first(path: Path, arrays: Any, count: int) -> None:
    """Keep the first maps, for a figure."""
    measuring.save_arrays(path, {name: array[:count] for name, array in arrays.items()})


def peaks(table: list[Row]) -> list[Row]:
    """Where the alignment of each loss is largest, by gradient, noise level and measure."""
    lines = []
    for target, sigma in dict.fromkeys((row["target"], row["sigma_pm1"]) for row in table):
        part = report.where(table, target=target, sigma_pm1=sigma)
        for loss in pags_jax.sweeps.swept(part):
            for measure, name in (("cosine", "cosine"), ("similarity", "1 - LPIPS")):
                line: Row = {"gradient of": target.replace("_", " "), "sigma": sigma, "loss": plot.look(loss).label}
                lines.append(line | {"measure": name} | pags_jax.questions.peak_of(part, loss, measure))
    return lines


def section(results: Results) -> list[report.Block]:
    """Where alignment peaks, and the figures."""
    lines = peaks(results.rows)
    level = min({line["sigma"] for line in lines}, key=lambda sigma: abs(np.log(sigma / SHOWN.sigma_pm1)), default=None)
    main = [line for line in lines if line["gradient of"] == SHOWN.target and line["sigma"] == level]
    return [
        "Each gradient is compared with a score of the same images: that of the sum of logits with the unconditional "
        "score, that of the class's logit with the conditional score, and that of the log-probability with the "
        "difference of the two. The sum of logits is no function of the classifier: adding c(x) to all logits "
        "changes it and no probability. A softmax loss has no gradient along the sum of the last layer's weights, so "
        "training leaves that sum as it was initialised. Noise levels sigma are for images in [-1, 1].",
        report.Table(main, "Where the logit's gradient looks most like the score (medians over seeds).", digits=3),
        report.Table(lines, "The same for every gradient and noise level.", digits=3),
        *results.figures("alignment.png", "Accuracy, 1 - LPIPS, cosine and off-manifold share by strength",
                         "The gradient of the label's logit and the conditional score.", part="pags_figures"),
        *results.figures("gradients.png", "Images, their score, and gradients of models from undefended to excessively "
                         "robust", "Gradients from weak to excessive robustness.", part="pags_figures"),
    ]  # fmt: skip


EXPERIMENT = measuring.experiment(
    "pags_alignment", Config, setup=setup, keep=keep, rows_of=rows_of, files=files_of,
    heading="Alignment of gradients with the score", section=section,
    parts=(
        Part({"none": {"images": 100, "sigmas_pm1": (0.5,)}, "quick": {}, "full": {}, "paper": {}, "cifar10": {}},
             reads=NAMED, files=FILES),
    ),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
