"""Images by the gradients of trained classifiers: synthesis, denoising, in-painting, counterfactuals and sketches.

    python -m scripts.pags.generation --trained runs/pags_train --judge runs/judge --out runs/pags_generation

See Santurkar et al. (2019), *Image Synthesis with a Single (Robust) Classifier*, and `pags_jax.generation`. There is a
row for each loss's best model and task (`pags_jax.drawing.measures`), and for the denoiser, which was trained for all
these tasks and marks the ceiling. A radius limits each ascent, but not the denoiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scripts.harness import cli, compiling, names, placement, report, store
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import generative, manifolds, measuring, sweeps
from scripts.pags.robustness import DENOISER_FILE, NAMED
from scripts.pags.sweeps import DENOISER

SHOWN, FLAGS = 10, {"in-painting": "inpainting", "image-to-image": "sketch"}
"""Images in a figure, and what the flags of some tasks' radii are called."""


@dataclass(frozen=True)
class Config(manifolds.ScoreConfig):
    """Make images by the gradients of trained models."""

    PRESETS: ClassVar = {
        "quick": {"images": 20, "steps": 4, "sample_steps": 3},
        "paper": {"images": 1000},
        "cifar10": {
            "square": 12, "eps_synthesis": 20.0, "eps_denoising": 8.0, "eps_inpainting": 10.0,
            "eps_counterfactual": 10.0, "eps_sketch": 5.0,
        },
    }  # fmt: skip

    judge: Path | None = None
    """Finished run of scripts.pags.train with another --seed, whose first model judges results; by default no judge."""
    losses: tuple[names.Loss, ...] = ("cross_entropy", "gradient_norm", "randomized_smoothing", "adversarial")
    """Losses whose models are compared."""
    images: cli.Count = 100
    """Number of images for each task; synthesis makes new ones, the other tasks take test images."""
    steps: cli.Count = 40
    """Number of steps of each ascent; each step has the length 2 eps / steps."""
    eps_synthesis: cli.Positive = 10.0
    """L2 radius around a draw of the class's Gaussian, for pixels in [0, 1] like all radii."""
    eps_denoising: cli.Positive = 6.0
    """L2 radius around a noisy image; the noise is about as long as --noise times the root of the number of pixels."""
    eps_inpainting: cli.Positive = 4.0
    """L2 radius around an image whose unknown square holds the mean image."""
    eps_counterfactual: cli.Positive = 5.0
    """L2 radius around an image of another class."""
    eps_sketch: cli.Positive = 3.0
    """L2 radius around a sketch (coarse blocks in few shades) that becomes an image."""
    noise: cli.Positive = 0.25
    """Standard deviation of the noise that is removed, for pixels in [0, 1]."""
    square: cli.Count = 10
    """Side of the square that is filled in, in pixels."""
    shrink: cli.Count = 4
    """Side of the blocks of pixels that sketches and the covariances of the classes' Gaussians are made of."""
    sample_steps: cli.Count = 18
    """Number of noise levels that the denoiser's samples pass through, at least 2."""

    def units(self) -> list[dict[str, Any]]:
        """One unit for each loss that was trained, and one for the denoiser."""
        table = [row for row in measuring.trained_rows(self.trained) if row["loss"] in self.losses]
        best = measuring.units_of(pags_jax.sweeps.best(table))
        return [*best, {"loss": DENOISER, "strength": 0.0, "seed": self.seed}]

    def files(self) -> Mapping[str, Path]:
        """The denoiser's file and the judge's, by their flags; the judge must be none of those that it judges."""
        found = dict(super().files())
        if self.judge is not None:
            judge = measuring.trained_rows(self.judge)[0]
            if judge["seed"] in {row["seed"] for row in measuring.trained_rows(self.trained)}:
                raise ValueError(f"--judge: {self.judge} has the seed {judge['seed']}, as --trained; take another")
            found["judge"] = self.judge / judge["weights"]
        return found


def setup(config: Config) -> tuple[pags_jax.drawing.Tasks, tuple[str, ...], Callable[..., Any], Any]:
    """What all models begin with, the names of the classes, the denoiser by labels, and the judge if there is one."""
    pags_jax.scores.noise_schedule(config.sample_steps)  # Refuses what cannot be drawn.
    judge, sample = config.files().get("judge"), measuring.sample(config)
    if judge is not None:
        judge = pags_jax.models.evaluator(*pags_jax.models.load(judge, kind="classifier")[:2])
    train = pags_jax.images.to_float(sample.data.train_x), jnp.asarray(sample.data.train_y)
    how = {name: getattr(config, name) for name in ("noise", "square", "shrink")}
    how |= {"key": jax.random.key(config.seed), "classes": len(sample.data.classes)}
    tasks = pags_jax.drawing.tasks_of(sample.x, sample.y, *train, **how)
    return tasks, sample.data.classes, manifolds.denoiser_of(config, sample), judge


def keep(config: Config, ready: tuple[Any, ...]) -> None:
    """Keep the first images, as they are and where the tasks begin, and the names of the classes to lead to."""
    tasks, classes, *_ = ready
    arrays: dict[str, Any] = {"truth": tasks.truth}
    for task, (start, y) in tasks.starts.items():
        arrays |= {task: jnp.clip(start, 0, 1), f"{task} to": np.array(classes)[np.asarray(y)]}
    measuring.save_arrays(config.out / "images" / "start.npz", arrays, first=SHOWN)


def rows_of(config: Config, ready: tuple[Any, ...], **unit: Any) -> list[Row]:
    """A model's rows, one for each task; its first images are kept."""
    (tasks, _, denoiser, judge), drawing, known = ready, pags_jax.drawing, {}
    if unit["loss"] == DENOISER:
        how = {"step": compiling.jitted(pags_jax.scores.heun_step), "apply": compiling.applied}
        key = jax.random.key(config.seed + 1)
        made = drawing.by_denoiser(denoiser, tasks, key=key, steps=config.sample_steps, **how)
    else:
        known, apply_fn = measuring.model_of(config.trained, **unit)
        known.pop("classes")
        radii = {task: getattr(config, f"eps_{FLAGS.get(task, task)}") for task in drawing.TASKS}
        how = {"steps": config.steps, "ascend": compiling.jitted(drawing.ascend, "task", "steps")}
        made = drawing.by_classifier(apply_fn, tasks, radii, key=jax.random.key(config.seed), **how)
    images = {task: found.images for task, found in made.items()}
    measuring.save_arrays(config.out / "images" / f"{store.unit_name(unit)}.npz", images, first=SHOWN)
    weights = pags_jax.datasets.lpips_weights.load_lpips_weights()
    lpips = partial(compiling.jitted(pags_jax.alignment.lpips, images=False), weights=weights)
    how = {"judge": judge, "lpips": lpips, "correct": compiling.jitted(pags_jax.evaluation.correct)}
    return [
        known | {"task": task} | drawing.measures(tasks, task, found, **how)
        for task, found in placement.everywhere(made).items()
    ]


def draw(config: Config, table: list[Row]) -> None:
    """Draw a panel for each task, with a line for each model and a column for each image."""
    folder = config.out / "images"
    starts = measuring.load_arrays(folder / "start.npz")
    for task in pags_jax.drawing.TASKS:
        lines = {} if task == "synthesis" else {"image": starts["truth"]}
        lines |= {} if task in ("synthesis", "counterfactual") else {"start": starts[task]}
        for row in in_order(report.where(table, task=task)):
            lines[sweeps.label_of(row)] = measuring.load_arrays(folder / f"{row['unit']}.npz")[task]
        to = starts[f"{task} to"].tolist() if task in ("synthesis", "counterfactual") else ()
        title = task.capitalize() + (" to the class below" if to else "")
        generative.panel(lines.items(), config.out / f"{task.replace('-', '')}.png", title=title, columns=to)


def in_order(table: list[Row]) -> list[Row]:
    """The rows, with the undefended model first and the denoiser last."""
    order = [*pags_jax.recipes.RECIPES, DENOISER]
    return sorted(table, key=lambda row: order.index(row["loss"]))


COLUMNS = {
    "judged_start": "judged right before", "judged": "after", "reached": "model convinced",
    "psnr_start": "PSNR before", "psnr_result": "PSNR after", "lpips_start": "LPIPS before",
    "lpips_result": "LPIPS after", "diversity": "diversity",
}  # fmt: skip


def section(results: Results) -> list[report.Block]:
    """What each model can draw: a table, and a figure for each task."""
    lines = [
        {"task": task, "model": sweeps.label_of(row)} | {title: row.get(column) for column, title in COLUMNS.items()}
        for task in pags_jax.drawing.TASKS
        for row in in_order(report.where(results.rows, task=task))
    ]
    return [
        "The gradients of classifiers draw these images within a radius of the start. 'Judged right' is the share "
        "that a classifier of another training run assigns to the class to which they were led. PSNR (in decibel) "
        "and LPIPS compare with the true image; in-painting's PSNR is that of the square alone. Diversity is the "
        "LPIPS between results for one class. The denoiser was trained for these tasks and marks the ceiling.",
        report.Table(lines, "Quality of the images that gradients draw.", digits=3),
        *(
            figure
            for task in pags_jax.drawing.TASKS
            for figure in results.figures(f"{task.replace('-', '')}.png", f"{task.capitalize()}, a line for each model")
        ),
    ]


QUESTIONS = {
    7: "Robust gradients draw what another classifier recognises (counterfactuals: the undefended model's share, and "
    "theirs).",
    8: "Robust gradients denoise (PSNR before and after).",
    9: "Robust gradients fill in (PSNR before and after).",
}


def claims(results: Results) -> list[Claim]:
    """Do robust gradients draw what a judge recognises, denoise, and fill in? See `pags_jax.drawing_questions`."""
    table, found = [row for row in results.rows if row["loss"] != DENOISER], []
    for question, text in QUESTIONS.items():
        answers = pags_jax.drawing_questions.drawn(table, question, images=table[0]["config.images"])
        ends = [[report.number(row[name], 3) for name in ("beside", "estimate", "low", "high")] for row in answers]
        texts = map("{} {} to {} (95 %: {} to {})".format, map(sweeps.label_of, answers), *zip(*ends, strict=True))
        number = "; ".join(texts)
        found += [Claim(text, [row["verdict"] == "shown" for row in answers], number)] if answers else []
    return found


EXPERIMENT = Experiment(
    "pags_generation", Config, rows_of, setup=setup, inputs=measuring.inputs, keep=keep, draw=draw,
    heading="What robust gradients can draw", section=section, claims=claims,
    parts=(
        Part({"full": {}, "paper": {}}, reads=NAMED, files=DENOISER_FILE),
        Part({"cifar10": {}}, reads=NAMED | {"judge": "pags_judge"}, files=DENOISER_FILE),
        Part({"cifar10": {}}, "pags_generation_robust_judge", files=DENOISER_FILE,
             reads=NAMED | {"judge": "pags_robust_judge"}),
    ),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
