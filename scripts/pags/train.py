"""Train classifiers by robust losses over a sweep of strengths, and measure them on clean and on attacked images.

    python -m scripts.pags.train --loss gradient_norm --strengths 1e-5:1e2:30 --out runs/gradient_norm

These are the models of section 5 of Srinivas et al. (2023). Each model has one row, and a file of weights in
``models/`` of the run folder (`pags_jax.models.load`). Test images serve only to measure; the strengths in the figure
are chosen on held-out training images.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from tyro.constructors import PrimitiveConstructorSpec

from scripts.harness import cli, names, rows, store
from scripts.harness.experiment import Experiment, Part, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import accuracy, fit, measuring

Strengths = Annotated[
    tuple[float, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NUMBER >= 0|START:STOP:COUNT [...]]",
        instance_from_str=lambda words: pags_jax.recipes.read_strengths(words),  # Imported when it is called.
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(item, int | float) for item in value),
        str_from_instance=lambda value: [repr(item) for item in value],
    ),
]
"""Several strengths: numbers, or START:STOP:COUNT, whose ratios are equal."""
_HYPER = ("epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "clip")


@dataclass(frozen=True)
class Config(fit.Config):
    """Train robust classifiers; the sweep compiles once for each loss."""

    PRESETS: ClassVar = {
        "quick": {
            "loss": ("cross_entropy", "adversarial"), "strengths": (1.0,), "epochs": 6, "steps": 3,
            "attack_eps": (0.5, 1.0, 1.5), "attack_steps": 10, "attack_rows": 500,
        },
        "paper": {
            "dataset": "cifar10", "model": "resnet18", "activation": "relu", "strength_unit": "reference",
            "epochs": 200, "batch_size": 128, "learning_rate": 0.025, "clip": None,
        },
        "cifar10": {
            "dataset": "cifar10", "model": "resnet14", "activation": "softplus", "stem": 2, "width": 0.5,
            "loss": ("cross_entropy", "gradient_norm", "adversarial", "randomized_smoothing", "smoothness"),
            "epochs": 1, "schedule": "linear", "learning_rate": 0.05, "steps": 3, "validation": 0.04,
            "train_rows": 24_000, "attack_eps": (0.25, 0.5, 1.0), "attack_rows": 200,
        },
    }  # fmt: skip

    dataset: names.Images = "fashion_mnist"
    """Data set; fashion_mnist is a balanced subset that the package contains, distractor puts letters beside images."""
    distractor_of: names.BesideDistractor = "fashion_mnist"
    """Data set beside whose images distractor puts letters; the paper uses mnist."""
    model: names.Model = "lenet"
    """Architecture of the classifiers."""
    activation: names.Activation = "softplus"
    """Nonlinearity; the softplus has beta 20. With a ReLU, deviations off the manifold measure its kinks at pixels that
    never vary."""
    stem: Literal[2, 3, 7] = 3
    """First layer of residual networks: 2 x 2 patches, a 3 x 3 convolution, or a 7 x 7 one for large images."""
    width: cli.Positive = 1.0
    """Factor that multiplies every number of channels."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which layers compute; parameters stay float32."""
    start: Path | None = None
    """Model file of this architecture from which every model starts; by default parameters are drawn at random."""
    loss: tuple[names.Loss, ...] = get_args(names.Loss)
    """Losses to train with."""
    strengths: Strengths = ()
    """Strengths of every loss except the cross-entropy, which has none; by default each loss has its own strengths."""
    strength_unit: names.StrengthUnit = "own"
    """Whether strengths are this project's constants (own) or the reference's, which hide a factor 1e5 / batch^2 in
    the gradient norm and attack with one ball for a batch. The default strengths of "reference" are the paper's 30."""
    schedule: Literal["drops", "linear"] = "drops"
    """How the learning rate changes: drops lowers it tenfold after 75 % and after 87.5 % of the epochs; linear raises
    it for a fifth of the steps and then lowers it to zero, which needs fewer epochs."""
    learning_rate: cli.Positive = 0.05
    """Highest learning rate. With --strength-unit reference it is lower for large strengths, as in the reference."""
    clip: cli.Positive | None = 1.0
    """Length to which the loss's gradient is clipped, so that large strengths need no small rates; None: no limit."""
    weight_decay: cli.NonNegative = 5e-4
    """Weight decay of all parameters."""
    steps: cli.Count = 10
    """Number of steps of the attack in adversarial training."""
    augment: names.Augment = "auto"
    """How training images are augmented, by random crops (padded by 4) and flips; auto does both for CIFAR and
    ImageNet, and nothing for other images."""
    validation: cli.Probability = 0.1
    """Share of the training images that are held out."""
    train_rows: cli.Count | None = None
    """Number of the remaining images to train on; by default all."""
    norm: names.Norm = "l2"
    """Norm of the radii of adversarial training and of --attack-eps; published linf radii are 8/255."""
    attack: names.Attack = "pgd"
    """Attack on trained models: pgd is PGD from two starts, ensemble adds APGD-CE and APGD-T."""
    attack_eps: tuple[cli.Positive, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    """Radii at which trained models are attacked, for pixels in [0, 1]."""
    attack_steps: cli.Count = 20
    """Number of steps of each attack on trained models."""
    attack_rows: cli.Count | None = None
    """Number of held-out and of test images that are attacked; by default all."""
    repeats: cli.Count = 1
    """Number of seeds, counted from --seed; each draws a split, the parameters and the training."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each seed, loss and strength: of all losses the first strength, of all the second, and so on."""
    if config.norm != "l2" and config.strength_unit == "reference":
        raise ValueError("--strength-unit reference is defined for --norm l2: its attacks share one L2 ball")
    swept = pags_jax.recipes.sweep(config.loss, config.strengths, config.strength_unit, config.dataset)
    return [
        {"dataset": config.dataset, "model": config.model, "loss": loss, "strength": strength, "seed": seed}
        for seed in range(config.seed, config.seed + config.repeats)
        for loss, strength in swept
    ]


def rows_of(config: Config, data: pags_jax.datasets.Images, **unit: Any) -> list[Row]:
    """Train, save and measure one model; one that diverges becomes a row that says so."""
    task = task_of(config, unit["loss"], len(data.classes))
    variables, split, row = trained(config, task, unit["loss"], data, unit)
    if variables is None:
        return [row]
    apply_fn, key = pags_jax.models.evaluator(task.model, variables), jax.random.split(jax.random.key(unit["seed"]))[1]
    how = {"norm": config.norm, "steps": config.attack_steps, "attack": config.attack, "rows": config.attack_rows}
    row |= {"attack_eps": config.attack_eps, "attack_norm": config.norm}
    for part, images in (("validation", split.validation), ("test", split.test)):
        found = accuracy.measured(apply_fn, *images, key=key, radii=config.attack_eps, **how)
        row |= {f"{part}_accuracy": found.clean, f"{part}_attacked": found.robust}
        row |= {f"{part}_no_gradient": found.no_gradient}
    return [row]


def trained(
    config: Config, task: pags_jax.training.Task, recipe: names.Loss, data: pags_jax.datasets.Images,
    unit: dict[str, Any],
) -> tuple[dict[str, Any] | None, pags_jax.recipes.HeldOut, Row]:  # fmt: skip
    """Train a model and save it: its variables, None if the training diverges; the split of the images; and the row.

    Raises:
      ValueError: The file that it is to start from holds a network of another architecture.
    """
    split = pags_jax.recipes.hold_out(data, config.validation, seed=unit["seed"], train_rows=config.train_rows)
    rows_there, how = len(split.train[0]), {name: getattr(config, name) for name in _HYPER}
    how |= {"steps_per_epoch": pags_jax.training.steps_per_epoch(task, rows_there), "unit": config.strength_unit}
    hyper = pags_jax.recipes.hyper(recipe, unit["strength"], **how)
    row: Row = {"loss_strength": float(hyper.strength), "learning_rate": float(hyper.learning_rate)}
    key, start = jax.random.split(jax.random.key(unit["seed"]))[0], None
    if config.start is not None:
        stored, start, _ = pags_jax.models.load(config.start, kind="classifier")
        if stored != task.model:
            raise ValueError(f"--start: {config.start} holds {stored}, and the flags ask for {task.model}")
    try:
        (run, means, _), found = fit.fit(config, unit, task, hyper, *split.train, key=key, variables=start)
        pags_jax.training.check_all_finite(run.state)
    except FloatingPointError as error:
        print(f"{store.unit_name(unit)}: {error}", file=sys.stderr)
        return None, split, row | {"train_rows": rows_there, "failure": str(error)}
    variables = pags_jax.training.variables_of(run.state)
    about = {"config": rows.flatten(config, without=(*fit.HOW, "start")) | unit} | inputs(config)
    weights = config.out / "models" / f"{store.unit_name(unit)}.safetensors"
    pags_jax.models.save(weights, task.model, variables, about, image_shape=split.train[0].shape[1:])
    row |= {"train_rows": rows_there, "failure": None, "parameters": pags_jax.models.count_parameters(variables)}
    row |= {"train_loss": means[-1, 0], "train_accuracy": means[-1, 1], "weights": str(weights.relative_to(config.out))}
    return variables, split, row | found


def inputs(config: Config) -> dict[str, str]:
    """Digest of the file that training starts from, if there is one."""
    return {} if config.start is None else {"start_sha256": measuring.digest_of([Path(config.start)])}


@functools.cache
def task_of(config: Config, loss: names.Loss | Callable[..., Any], classes: int) -> pags_jax.training.Task:
    """The training task of a loss, its name or a function, which is compiled once for all strengths."""
    options = {"unit": config.strength_unit, "norm": config.norm, "unroll": fit.is_stepwise(config.driver)}
    options |= {"steps": config.steps}
    function = loss if callable(loss) else pags_jax.recipes.loss_function(loss, **options)
    architecture = {name: getattr(config, name) for name in ("activation", "stem", "width", "dtype")}
    model = pags_jax.models.create(config.model, classes=classes, **architecture)
    augmentation = pags_jax.recipes.augmentation_of(config.augment, config.dataset)
    return pags_jax.training.Task(model, function, augmentation, config.batch_size)


#: What the sweep is trained with in reproduce: narrower than the default, and in smaller batches, to save time.
ATTACK = {"attack_eps": (0.5, 1.0, 1.5), "attack_steps": 10, "attack_rows": 100}
SWEEP: dict[str, dict[str, Any]] = {
    "none": {"width": 0.25, "batch_size": 32, "train_rows": 1000, "epochs": 5, "steps": 3} | ATTACK
    | {"attack_eps": (0.5, 1.5), "attack_rows": 60, "attack_steps": 5},
    "quick": {"width": 0.25, "train_rows": 1024, "epochs": 3, "steps": 2, "strengths": (0.1, 1.0)} | ATTACK
    | {"loss": ("cross_entropy", "gradient_norm", "adversarial"), "attack_eps": (0.5,), "attack_steps": 2},
    "full": {"width": 0.5, "train_rows": 4000, "epochs": 5, "steps": 3} | ATTACK,
    "paper": {"epochs": 40} | ATTACK | {"attack_steps": 20, "attack_rows": 1000},
}  # fmt: skip
#: Models to be asked about the distractor are wider, as narrow ones learn to guess; their robustness is no question.
BESIDE = {"dataset": "distractor", "loss": SWEEP["quick"]["loss"], "strengths": (1.0,), "attack_eps": (0.5,)}
WIDER = {"none": SWEEP["none"] | {"width": 0.5, "batch_size": 64, "train_rows": 2000, "attack_steps": 1}}
#: Of CIFAR-10 one model is trained from its beginning, and the sweep goes on from it.
UNDEFENDED = {"loss": ("cross_entropy",), "epochs": 5, "learning_rate": 0.1, "train_rows": None}
#: Other training runs judge what gradients draw: an undefended model, and one that small changes do not move.
JUDGE = {"loss": ("cross_entropy",), "activation": "relu", "epochs": 3, "learning_rate": 0.1, "train_rows": 48_000}
ROBUST_JUDGE = {"loss": ("adversarial",), "strengths": (0.5,)}
FROM = ("pags_undefended", "models/dataset=cifar10,model=resnet14,loss=cross_entropy,strength=0.0,seed={}.safetensors")
EXPERIMENT = Experiment(
    "pags_train", Config, rows_of, plan, setup=fit.images_of, inputs=inputs, finished=fit.finished, draw=accuracy.draw,
    heading="Robust models: accuracy under attack", section=accuracy.section, claims=accuracy.claims,
    optimised=True, parts=(
        Part({"cifar10": UNDEFENDED}, FROM[0]),
        Part(SWEEP | {"cifar10": {}}, seeds="sweeps", files={"start": FROM}),
        Part({"cifar10": JUDGE}, "pags_judge", other_seed=1),
        Part({"cifar10": ROBUST_JUDGE}, "pags_robust_judge", files={"start": FROM}, other_seed=1),
        Part({size: own | BESIDE for size, own in (SWEEP | WIDER).items()}, "pags_distractor_train", seeds="sweeps"),
    ),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
