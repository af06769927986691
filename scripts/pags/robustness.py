"""On- and off-manifold robustness of the models of a training run, on the same images, directions and noise.

    python -m scripts.pags.robustness --trained runs/pags_train --out runs/pags_robustness

How far does a step of a given length, along the data manifold or off it, move the class probabilities (Srinivas et al.
2023, section 5)? There is one row for each model and length, with the values of all images in ``values/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.harness import cli, compiling, placement, plot, report
from scripts.harness.experiment import Claim, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import manifolds, measuring
from scripts.pags.sweeps import SHOWN

#: The paper's twenty lengths, those of `pags_jax.robustness.REFERENCE_EPS` to six digits.
REFERENCE_EPS = tuple(float(f"{10 ** (-3 + 5 * k / 19):.6g}") for k in range(20))


@dataclass(frozen=True)
class Config(manifolds.ManifoldConfig):
    """Measure on- and off-manifold robustness."""

    PRESETS: ClassVar = {
        "quick": {"images": 50, "draws": 1, "eps": (0.1, 0.5, 1.0, 2.637)},
        "paper": {"images": 1000},
        "cifar10": {"images": 500, "eps": (0.07, 0.43, 1.3, 2.637, 5.0)},
    }

    eps: tuple[cli.Positive, ...] = REFERENCE_EPS
    """Lengths (L2) of the steps, for images in [0, 1]; by default the paper's twenty."""
    draws: cli.Count = 2
    """Number of noise draws to average over for each image."""
    shown: cli.Count = 4
    """Number of images to store in noise.npz, for a figure."""


def setup(config: Config) -> tuple[jax.Array, pags_jax.tangents.Tangents, jax.Array]:
    """Images, tangent spaces and noise that all models are measured with."""
    sample = measuring.sample(config)
    tangents = manifolds.tangents_at(config, sample)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    noise = jax.random.normal(key, (config.draws, *sample.x.shape), sample.x.dtype)
    return sample.x, tangents, jax.vmap(tangents.only)(noise)


def keep(config: Config, ready: tuple[Any, ...]) -> None:
    """Keep a few images, their noise on and off the manifold (unit length), and their rank, for a figure."""
    x, tangents, noise = ready
    basis = tangents.basis[: config.shown]
    on, off = pags_jax.robustness.directions(basis, noise[0][: config.shown])
    arrays = {"x": x, "on": on, "off": off, "rank": pags_jax.manifold.rank(basis)}
    measuring.save_arrays(config.out / "noise.npz", arrays, first=config.shown)


def rows_of(config: Config, ready: tuple[Any, ...], _: dict[str, Any], apply_fn: Any) -> list[Row]:
    """Deviations of one model, a row for each length."""
    x, tangents, noise = ready
    ranks = {"rank": tangents.rank, "size": tangents.size}
    x, basis, noise = placement.rows(x), *placement.everywhere((tangents.basis, noise))
    table, deviations = [], compiling.jitted(pags_jax.robustness.manifold_robustness)
    for eps in config.eps:
        on, off = placement.on_host(deviations(apply_fn, x, basis, noise=noise, eps_l2=jnp.float32(eps)))
        table.append({"eps_l2": eps, "on": on, "off": off} | ranks)
    return table


def regimes(results: Results) -> dict[tuple[str, str], Any]:
    """The regimes of each loss by each rule that was measured; None where no model could be."""
    rules = {
        "energy": (SHOWN.place.by_energy, results.of("pags_alignment")),
        "unit steps": (SHOWN.place.by_steps, results.rows),
        "unit steps, pixels that vary": (SHOWN.place.by_steps, results.of("pags_robustness_varying")),
    }
    losses = pags_jax.sweeps.swept(results.rows)
    return {(loss, rule): read(table, loss) for loss in losses for rule, (read, table) in rules.items() if table}


def section(results: Results) -> list[report.Block]:
    """The regimes of each loss, by the stated rules, and the figures."""
    lines = [
        {"loss": plot.look(loss).label, "rule": rule} | pags_jax.questions.spans_of(found)
        for (loss, rule), found in regimes(results).items()
    ]
    return [
        "Two rules say whether a model is robust off the manifold. By energy, less than half of its gradient's "
        "squared length is off the data manifold. By unit steps, a step off the manifold moves the probabilities "
        "less than an equally long one along it. The second rule is weaker: the manifold has few dimensions and the "
        "rest many, so a gradient of random direction passes it. 'Pixels that vary' leaves out pixels that are "
        "constant among an image's neighbours, such as a black background. A strength is weak before the model is "
        f"robust off the manifold, aligned while it is and its accuracy is within {SHOWN.tolerance:g} of the sweep's "
        "best, and excessive once accuracy has fallen for good. A sweep whose best accuracy is not above chance by "
        "more than that has no regimes. The undefended model has strength 0.",
        report.Table(lines, "Strengths of each regime.", digits=3),
        *results.figures("regimes_*.png", "Accuracy, deviation on and off the manifold, and alignment against strength",
                         "Shades mark regimes by energy: weak (sand), aligned (blue), excessive (grey). The dotted "
                         "line marks the strength whose gradients look most like the score.", part="pags_figures"),
        *results.figures("noise.png", "Images with a step along the manifold, and off "
                         "it, which looks like noise", "Steps along the manifold and off it, of L2 length 1 and 4 for "
                         "pixels in [0, 1].", part="pags_figures"),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """How many losses have all three regimes, by energy?"""
    aligned, losses = results.of("pags_alignment"), pags_jax.sweeps.swept(results.rows)
    counts = [pags_jax.questions.three_regimes(SHOWN.place, aligned, loss)["estimate"] for loss in losses]
    each = ", ".join(f"{plot.look(loss).label} {n}" for loss, n in zip(losses, counts, strict=True))
    text = "Robustness has three regimes: weak, aligned with the Bayes-optimal model, excessive (by the energy of "
    return [Claim(text + "gradients).", [n == 3 for n in counts], f"regimes found: {each}")]


NAMED = {"trained": "pags_train"}
LENGTHS = (0.07, 0.43, 1.33, 2.637, 5.0)  # A step of 2.637, in the paper's figures on 3,072 values, is 1.33 on 784.
FILES = {name: (f"pags_{part}", f"{name}.safetensors") for name, part in manifolds.SCRIPTS.items()}
DENOISER_FILE = {"denoiser": FILES["denoiser"]}
SIZES = {"none": {"eps": (0.43, 1.33, 2.637), "images": 100}, "quick": {}, "full": {"eps": LENGTHS}, "paper": {}}
VARYING = {preset: values | {"pixels": "varying"} for preset, values in SIZES.items()}
#: Other ways to find the manifold, on fewer images, as checks.
LOCAL_PCA = {"images": 100, "manifold": "local_pca"}
EXPERIMENT = measuring.experiment(
    "pags_robustness", Config, setup=setup, keep=keep, rows_of=rows_of,
    heading="Three regimes of robustness", section=section, claims=claims,
    parts=(
        Part(SIZES | {"cifar10": {}}, reads=NAMED, files=FILES),
        Part(VARYING, "pags_robustness_varying", reads=NAMED),
        Part({"cifar10": LOCAL_PCA}, "pags_robustness_local_pca", reads=NAMED, files=FILES),
        Part({"cifar10": LOCAL_PCA | {"manifold": "denoiser"}}, "pags_robustness_denoiser", reads=NAMED, files=FILES),
    ),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
