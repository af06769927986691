"""Every measure of published classifiers on images of class folders, such as ImageNet's, streamed batch by batch.

    python -m scripts.pags.photographs --folder imagenet/val --classifiers resnet50_l2_eps3.ckpt \
        --denoiser edm-imagenet-64x64-cond-adm.pkl --out runs/pags_photographs

See Srinivas et al. (2023), section 5.2. Images are read at the classifiers' size, and averaged down to the denoiser's,
for the scores. Gradients are resized to the scores' size as the authors do (bilinearly, without a filter; --antialias
filters first); vectors of tangent spaces are resized to the classifiers' size and made orthonormal again. One batch is
in memory at a time; its tangent spaces are computed once for all classifiers. Each batch and classifier has one row,
and ``values/`` has the values of all images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

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
    """File of the denoiser for scores, ours or its publisher's, or a name in the catalogue."""
    autoencoder: Path | None = None
    """File of scripts.pags.autoencoder for tangent spaces; by default they come from the denoiser's Jacobian."""
    size: cli.Count = 224
    """Height and width of the images that the classifiers see, in pixels."""
    score_size: cli.Count = 64
    """Height and width of the images that the denoiser and the autoencoder see, in pixels."""
    images: cli.Count = 1000
    """Number of images in all."""
    batch_size: cli.Count = 8
    """Number of images in memory at once, with their tangent spaces."""
    sigma_pm1: cli.Positive = 1.2
    """Noise level of the score, for images in [-1, 1]; the paper's is 1.2."""
    target: names.Target = "logit"
    """Gradient that is compared with its score."""
    antialias: bool = False
    """Filter gradients before they are made smaller, which the authors do not do."""
    eps: cli.Positive = 2.637
    """Length (L2) of steps on and off the manifold, for images in [0, 1]."""
    rank: cli.Count = 16
    """Dimension of tangent spaces from the denoiser; an autoencoder's have the dimension of its code."""
    tangent_sigma_pm1: cli.Positive = 0.2
    """Noise level of the denoiser's Jacobian, for images in [-1, 1]."""


class Ready(NamedTuple):
    """What every batch is measured with: classifiers by name, the denoiser, and the source of tangent spaces."""

    found: Any
    classifiers: dict[str, Any]
    denoise: Any
    tangents: Any


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each batch."""
    return [{"batch": batch, "seed": config.seed} for batch in range(math.ceil(config.images / config.batch_size))]


def inputs(config: Config) -> dict[str, str]:
    """Digests of the files of all networks; names of the catalogue are checked when they are read."""
    paths = [Path(name) for name in (*config.classifiers, config.denoiser, config.autoencoder or "")]
    return {"networks_sha256": measuring.digest_of([path for path in paths if path.is_file()])}


def setup(config: Config) -> Ready:
    """The list of the images, and all networks."""
    if not config.classifiers:
        raise ValueError("--classifiers: name at least one file, such as resnet50_l2_eps3.ckpt")
    datasets = pags_jax.datasets
    classes = None if config.training is None else datasets.find_images(config.training).classes
    found = datasets.find_images(config.folder, classes=classes)
    if config.images > len(found.paths):
        raise ValueError(f"--images: {config.folder} holds {len(found.paths)} images, got {config.images}")
    chosen = np.random.default_rng(config.seed).permutation(len(found.paths))[: config.images]
    found = found._replace(paths=tuple(found.paths[k] for k in chosen), labels=found.labels[chosen])
    load = pags_jax.models.load_pretrained
    classifiers = {name: load(name)[0] for name in config.classifiers}
    denoise, about = load(config.denoiser)
    if about["kind"] != "denoiser":
        raise ValueError(f"--denoiser: {config.denoiser} is a {about['kind']}")
    return Ready(found, classifiers, denoise, tangents_of(config, denoise))


def tangents_of(config: Config, denoise: Any) -> Any:
    """A function from images of the denoiser's size, and a key of each, to bases of their tangent spaces."""
    if config.autoencoder is not None:
        model, variables, _ = pags_jax.models.load(config.autoencoder, kind="autoencoder")
        encode, decode = pags_jax.models.encoder(model, variables), pags_jax.models.decoder(model, variables)
        return lambda x, keys: manifolds.decoder_bases(decode, encode(x))
    options = {"sigma_pm1": config.tangent_sigma_pm1, "rank": config.rank}
    return lambda x, keys: manifolds.denoiser_bases(denoise, x, keys, **options)


def rows_of(config: Config, ready: Ready, *, batch: int, seed: int) -> list[Row]:
    """A batch's rows, one for each classifier."""
    images = slice(batch * config.batch_size, (batch + 1) * config.batch_size)
    part = ready.found._replace(paths=ready.found.paths[images], labels=ready.found.labels[images])
    options = {"batch_size": len(part.paths), "seed": None, "size": config.size, "epochs": 1}
    (read,) = pags_jax.datasets.image_batches(part, **options)
    x, y = pags_jax.images.to_float(jnp.asarray(read.x)), jnp.asarray(read.y)
    resize = compiling.jitted(pags_jax.alignment.resize, "size", "antialias")
    small = resize(x, size=config.score_size, antialias=True)
    score = score_of(config, ready.denoise, small, y)
    # Of each image, whatever batch it is in.
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(seed), images.start + k)) for k in range(len(x))]
    basis = ready.tangents(small, [key for key, _ in keys])
    basis = compiling.jitted(pags_jax.bases.resize, "size")(basis, size=config.size)
    noise = jnp.stack([jax.random.normal(key, x.shape[1:], x.dtype) for _, key in keys])[None]
    rank, table, by_name = float(pags_jax.manifold.rank(basis).mean()), [], {}
    gradient_of = compiling.jitted(pags_jax.gradients.input_gradients, "target")
    deviations = compiling.jitted(pags_jax.robustness.manifold_robustness)
    right = compiling.jitted(pags_jax.evaluation.correct)
    for name, apply_fn in ready.classifiers.items():
        gradient = gradient_of(apply_fn, x, y, target=config.target)
        resized = resize(gradient, size=config.score_size, antialias=config.antialias)
        cosine, similarity = manifolds.compare(resized, score)
        share = compiling.jitted(pags_jax.robustness.off_manifold_share, images=False)(gradient, basis)
        on, off = deviations(apply_fn, x, basis, noise=noise, eps_l2=jnp.float32(config.eps))
        found = (right(apply_fn, x, y).astype(x.dtype), on, off, share, cosine, similarity)
        values: Row = dict(zip(MEASURES, map(np.asarray, placement.on_host(found)), strict=True))
        by_name[name] = values
        table.append({"classifier": name, "rank": rank, "images": len(x)} | pags_jax.statistics.means_of({**values}))
    stacked = {name: np.stack([values[name] for values in by_name.values()]) for name in MEASURES}
    stacked["image"] = np.array([f"{path.parent.name}/{path.name}" for path in part.paths])
    measuring.save_arrays(config.out / "values" / f"{store.unit_name({'batch': batch, 'seed': seed})}.npz", stacked)
    return table


def score_of(config: Config, denoise: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The score that gradients are compared with."""
    kind, scores = pags_jax.alignment.PAIRINGS[config.target], pags_jax.scores
    of_class = denoise if kind == "unconditional" else denoise.of(y)
    given = (of_class, denoise) if kind == "bayes" else (of_class,)
    function = scores.bayes_gradient if kind == "bayes" else scores.score
    return compiling.jitted(function)(*given, x, sigma_pm1=jnp.float32(config.sigma_pm1))


def section(results: Results) -> list[report.Block]:
    """Means over all images, where each batch weighs as many images as have every measure."""
    lines = []
    for name in dict.fromkeys(row["classifier"] for row in results.rows):
        part = report.where(results.rows, classifier=name)
        counts = [row["images"] - row["invalid"] for row in part]
        line: Row = {"classifier": Path(name).name, "images": sum(counts)}
        for measure in MEASURES:
            known = [(row[measure], n) for row, n in zip(part, counts, strict=True) if row[measure] is not None]
            total = sum(n for _, n in known)
            line[measure] = sum(value * n for value, n in known) / total if total else None
        lines.append(line)
    columns = {"classifier": "classifier", "images": "images", "correct": "accuracy", "on": "on-manifold deviation"}
    columns |= {"off": "off-manifold deviation", "off_share": "off-manifold share", "cosine": "cosine"}
    return [
        "Published classifiers are measured on the same images, directions and noise. The table shows how far unit "
        "directions on and off the manifold move the probabilities, which share of the gradient is off the manifold, "
        "and how the gradient compares with the score.",
        report.Table(lines, "All measures.", columns=columns | {"similarity": "1 - LPIPS"}, digits=3),
    ]


EXPERIMENT = Experiment(
    "pags_photographs", Config, rows_of, plan, setup=setup, inputs=inputs,
    heading="Published classifiers on photographs", section=section,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
