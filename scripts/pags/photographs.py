"""Every measure of published classifiers on images of class folders, such as ImageNet's, streamed batch by batch.

    python -m scripts.pags.photographs --folder imagenet/val --classifiers resnet50_l2_eps3.ckpt \
        --denoiser edm-imagenet-64x64-cond-adm.pkl --out runs/pags_photographs

See Srinivas et al. (2023), section 5.2. Images are averaged down to the denoiser's size for scores and tangent spaces;
gradients are resized to it as the authors do, and vectors of tangent spaces to the classifiers' size, where they are
made orthonormal again. Each batch and classifier has one row, and ``values/`` has the values of all images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scripts.harness import cli, compiling, names, placement, report, store
from scripts.harness.experiment import Experiment, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import manifolds, measuring

MEASURES = ("correct", "on", "off", "off_share", "cosine", "similarity")


@dataclass(frozen=True)
class Config(cli.Common):
    """Measure published classifiers on class folders."""

    PRESETS: ClassVar = {"quick": {"images": 16, "rank": 4}, "paper": {"images": 1000, "rank": 128}}

    folder: Path = Path("data/imagenet/val")
    """Folder of class folders with the images to measure, which are drawn by --seed."""
    training: Path | None = None
    """Folder of the training images' class folders, whose order is that of the labels; by default --folder."""
    classifiers: tuple[str, ...] = ()
    """Files of classifiers, ours or their publishers', or names in `pags_jax.models.catalogue`."""
    denoiser: str = "edm-imagenet-64x64-cond-adm.pkl"
    """File of the denoiser for scores and tangent spaces, ours or its publisher's, or a name in the catalogue."""
    size: cli.Count = 224
    """Height and width of the images that the classifiers see, in pixels."""
    score_size: cli.Count = 64
    """Height and width of the images that the denoiser sees, in pixels."""
    images: cli.Count = 1000
    """Number of images in all."""
    batch_size: cli.Count = 8
    """Number of images in memory at once, with their tangent spaces."""
    sigma_pm1: cli.Positive = 1.2
    """Noise level of the score, for images in [-1, 1]; the paper's is 1.2."""
    target: names.Target = "logit"
    """Gradient that is compared with its score."""
    eps: cli.Positive = 2.637
    """Length (L2) of steps on and off the manifold, for images in [0, 1]."""
    rank: cli.Count = 16
    """Dimension of the tangent spaces."""
    tangent_sigma_pm1: cli.Positive = 0.2
    """Noise level of the denoiser's Jacobian, for images in [-1, 1]."""

    def units(self) -> list[dict[str, Any]]:
        """One unit for each batch."""
        return [{"batch": batch, "seed": self.seed} for batch in range(math.ceil(self.images / self.batch_size))]


def inputs(config: Config) -> dict[str, str]:
    """Digests of the files of all networks; names of the catalogue are checked when they are read."""
    paths = [Path(name) for name in (*config.classifiers, config.denoiser)]
    return {"networks_sha256": measuring.digest_of([path for path in paths if path.is_file()])}


def setup(config: Config) -> tuple[pags_jax.datasets.FoundImages, dict[str, Any], Any]:
    """The images, not read yet, the classifiers by name, and the denoiser."""
    if not config.classifiers:
        raise ValueError("--classifiers: name at least one file, such as resnet50_l2_eps3.ckpt")
    find = pags_jax.datasets.find_images
    found = find(config.folder, classes=None if config.training is None else find(config.training).classes)
    if config.images > len(found.paths):
        raise ValueError(f"--images: {config.folder} holds {len(found.paths)} images, got {config.images}")
    found = found.take(np.random.default_rng(config.seed).permutation(len(found.paths))[: config.images])
    load = pags_jax.models.load_pretrained
    classifiers = {name: load(name)[0] for name in config.classifiers}
    denoise, about = load(config.denoiser)
    if about["kind"] != "denoiser":
        raise ValueError(f"--denoiser: {config.denoiser} is a {about['kind']}")
    return found, classifiers, denoise


def rows_of(config: Config, ready: tuple[Any, ...], **unit: int) -> list[Row]:
    """A batch's rows, one for each classifier."""
    (found, classifiers, denoise), jitted, first = ready, compiling.jitted, unit["batch"] * config.batch_size
    part = found.take(slice(first, first + config.batch_size))
    options = {"batch_size": len(part.paths), "seed": None, "size": config.size, "epochs": 1}
    (read,) = pags_jax.datasets.image_batches(part, **options)
    x, y = pags_jax.images.to_float(jnp.asarray(read.x)), jnp.asarray(read.y)
    resize = jitted(pags_jax.alignment.resize, "size", "antialias")
    small = resize(x, size=config.score_size, antialias=True)
    kind, score_of = pags_jax.alignment.PAIRINGS[config.target], jitted(pags_jax.scores.score)
    of_class, sigma = denoise if kind == "unconditional" else denoise.of(y), jnp.float32(config.sigma_pm1)
    score = score_of(of_class, small, sigma_pm1=sigma)
    if kind == "bayes":
        score -= score_of(denoise, small, sigma_pm1=sigma)
    # Of each image, whatever batch it is in.
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(unit["seed"]), first + k)) for k in range(len(x))]
    options = {"sigma_pm1": config.tangent_sigma_pm1, "rank": config.rank}
    basis = manifolds.denoiser_bases(denoise, small, [key for key, _ in keys], **options)
    basis = jitted(pags_jax.bases.resize, "size")(basis, size=config.size)
    noise = jnp.stack([jax.random.normal(key, x.shape[1:], x.dtype) for _, key in keys])[None]
    known, by_name = {"rank": float(pags_jax.manifold.rank(basis).mean()), "images": len(x)}, {}
    for name, apply_fn in classifiers.items():
        gradient = jitted(pags_jax.gradients.input_gradients, "target")(apply_fn, x, y, target=config.target)
        resized = resize(gradient, size=config.score_size, antialias=False)
        share = jitted(pags_jax.robustness.off_manifold_share, images=False)(gradient, basis)
        deviations, eps = jitted(pags_jax.robustness.manifold_robustness), jnp.float32(config.eps)
        moved = deviations(apply_fn, x, basis, noise=noise, eps_l2=eps)
        right = jitted(pags_jax.evaluation.correct)(apply_fn, x, y).astype(x.dtype)
        found = placement.on_host((right, *moved, share, *manifolds.compare(resized, score)))
        by_name[name] = dict(zip(MEASURES, found, strict=True))
    stacked = {name: np.stack([values[name] for values in by_name.values()]) for name in MEASURES}
    stacked["image"] = np.array([f"{path.parent.name}/{path.name}" for path in part.paths])
    measuring.save_arrays(config.out / "values" / f"{store.unit_name(unit)}.npz", stacked)
    return [{"classifier": name} | known | pags_jax.means.means_of(values) for name, values in by_name.items()]


def section(results: Results) -> list[report.Block]:
    """Means over all images, where each batch weighs as many images as have every measure."""
    lines = [
        {"classifier": Path(name).name} | pags_jax.means.pooled(part, MEASURES)
        for name, part in report.groups(results.rows, "classifier").items()
    ]
    columns = {"classifier": "classifier", "images": "images", "correct": "accuracy", "on": "on-manifold deviation"}
    columns |= {"off": "off-manifold deviation", "off_share": "off-manifold share", "cosine": "cosine"}
    return [
        "Published classifiers are measured on the same images, directions and noise. The table shows how far unit "
        "directions on and off the manifold move the probabilities, which share of the gradient is off the manifold, "
        "and how the gradient compares with the score.",
        report.Table(lines, "All measures.", columns=columns | {"similarity": "1 - LPIPS"}, digits=3),
    ]


EXPERIMENT = Experiment(
    "pags_photographs", Config, rows_of, setup=setup, inputs=inputs,
    heading="Published classifiers on photographs", section=section,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
