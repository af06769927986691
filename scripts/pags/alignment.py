"""How much the input gradients of the models of a training run look like the score of a generative model.

    python -m scripts.pags.alignment --trained runs/pags_train --out runs/pags_alignment

See Srinivas et al. (2023), section 5. There is one row for each model and pair of gradient and score, with the values
of all images in ``values/``. A model trained under noise of standard deviation s, in [0, 1], approximates the Bayes
classifier of images with the noise 2 s in [-1, 1]: such models are also compared at all of these levels in the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from scripts.harness import cli, compiling, names, placement, plot, report, store
from scripts.harness.experiment import Part, Results, Row
from scripts.harness.lazy import jnp, pags_jax
from scripts.pags import manifolds, measuring
from scripts.pags.robustness import FILES, NAMED
from scripts.pags.sweeps import SHOWN, SMOOTHED


@dataclass(frozen=True)
class Config(manifolds.ManifoldConfig):
    """Measure the alignment of gradients with scores."""

    NEEDS: ClassVar = ("tangents", "scores")
    PRESETS: ClassVar = {
        "quick": {"images": 50, "sigmas_pm1": (0.5,)},
        "paper": {"images": 1000},
        "cifar10": {"images": 500},
    }

    sigmas_pm1: tuple[cli.Positive, ...] = (0.5, 1.0, 2.0)
    """Noise levels of the score, for images in [-1, 1]; the paper uses 0.5 for CIFAR-10 and 1.2 for ImageNet-64."""
    shown: cli.Count = 6
    """Number of images whose gradients and scores are stored for figures."""


def setup(config: Config) -> tuple[pags_jax.samples.Sample, pags_jax.tangents.Tangents, dict[float, Any]]:
    """Images, their tangent spaces, and their scores by noise level and kind, that all models are measured with."""
    sample = measuring.sample(config)
    tangents, denoiser = manifolds.tangents_at(config, sample), manifolds.denoiser_of(config, sample)
    score_of, maps = compiling.jitted(pags_jax.scores.score), {}
    own = [2 * sigma for sigma in pags_jax.sweeps.noise_levels(measuring.trained_rows(config.trained))]
    for sigma in dict.fromkeys((*config.sigmas_pm1, *own)):
        at = {"sigma_pm1": jnp.float32(sigma)}
        of_all, of_class = score_of(denoiser(), sample.x, **at), score_of(denoiser(sample.y), sample.x, **at)
        kinds = {"unconditional": of_all, "conditional": of_class, "bayes": of_class - of_all}
        maps[sigma] = {kind: tangents.only(score) for kind, score in kinds.items()}
    return sample, tangents, maps


def keep(config: Config, ready: tuple[Any, ...]) -> None:
    """Keep a few scores, for figures."""
    sample, _, scores = ready
    for sigma, kinds in scores.items():
        arrays = {"x": sample.x, "y": sample.y, **kinds}
        measuring.save_arrays(config.out / f"scores_{sigma:g}.npz", arrays, first=config.shown)


def rows_of(config: Config, ready: tuple[Any, ...], unit: dict[str, Any], apply_fn: Any) -> list[Row]:
    """One model's comparisons: each gradient with its score at each noise level."""
    sample, tangents, scores = ready
    x, own = placement.rows(sample.x), [sigma for sigma in scores if sigma not in config.sigmas_pm1]
    y, scores, basis = placement.everywhere((sample.y, scores, tangents.basis))
    gradient_of = compiling.jitted(pags_jax.gradients.input_gradients, "target")
    gradients = {target: tangents.only(gradient_of(apply_fn, x, y, target=target)) for target in get_args(names.Target)}
    measuring.save_arrays(config.out / "gradients" / f"{store.unit_name(unit)}.npz", gradients, first=config.shown)
    ranks = {"rank": tangents.rank, "size": tangents.size}
    table, share_of = [], compiling.jitted(pags_jax.robustness.off_manifold_share, images=False)
    for sigma in (*config.sigmas_pm1, *(own if unit["loss"] == SMOOTHED else ())):
        for target, gradient in gradients.items():
            kind = pags_jax.alignment.PAIRINGS[target]
            found = (*manifolds.compare(gradient, scores[sigma][kind]), share_of(gradient, basis))
            values = dict(zip(("cosine", "similarity", "off_share"), placement.on_host(found), strict=True))
            table.append({"target": target, "sigma_pm1": sigma, "score": kind} | values | ranks)
    return table


def section(results: Results) -> list[report.Block]:
    """Where alignment peaks, and the figures."""
    lines = [
        {"gradient of": target.replace("_", " "), "sigma": sigma, "loss": plot.look(loss).label, "measure": name}
        | pags_jax.questions.peak_of(part, loss, measure)
        for (target, sigma), part in report.groups(results.rows, "target", "sigma_pm1").items()
        for loss in pags_jax.sweeps.swept(part)
        for measure, name in pags_jax.explanation.ALIGNMENTS.items()
    ]
    main = [line for line in lines if line["gradient of"] == SHOWN.target]
    main = pags_jax.sweeps.nearest(main, "sigma", SHOWN.sigma_pm1)
    return [
        "Each gradient is compared with a score of the same images: those of the logits' sum and of log-sum-exp (minus "
        "JEM's energy) with the unconditional score, that of the class's logit with the conditional score, that of the "
        "log-probability with the difference of the two. Neither of the first two is the classifier's alone: adding "
        "c(x) to all logits changes it and no probability. A softmax loss has no gradient along the sum of the last "
        "layer's weights, so training leaves that sum as it was initialised. Sigma is for images in [-1, 1].",
        report.Table(main, "Where the logit's gradient looks most like the score (medians over seeds).", digits=3),
        report.Table(lines, "The same for every gradient and noise level.", digits=3),
        *results.figures("alignment.png", "Accuracy, 1 - LPIPS, cosine and off-manifold share by strength",
                         "The gradient of the label's logit and the conditional score.", part="pags_figures"),
        *(figure for loss in pags_jax.sweeps.swept(results.rows) for figure in results.figures(
            f"gradients_{loss}.png", f"Images, their score, and gradients by strength: {plot.look(loss).label}",
            f"Gradients from weak to strong, {plot.look(loss).label}, beside the undefended.", part="pags_figures")),
    ]  # fmt: skip


EXPERIMENT = measuring.experiment(
    "pags_alignment", Config, setup=setup, keep=keep, rows_of=rows_of,
    heading="Alignment of gradients with the score", section=section,
    parts=(
        Part({"none": {"images": 100, "sigmas_pm1": (0.5,)}, "quick": {}, "full": {}, "paper": {}, "cifar10": {}},
             reads=NAMED, files=FILES),
    ),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
