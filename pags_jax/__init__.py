"""Perceptually-aligned gradients in JAX: robust models, their input gradients, and what these align with.

After Srinivas, Bordt and Lakkaraju, *Which Models have Perceptually-Aligned Gradients? An Explanation via Off-Manifold
Robustness* (NeurIPS 2023). Images are ``(n, height, width, channels)`` floats in [0, 1]; a model is a function
``apply_fn(x) -> logits`` of shape ``(n, classes)``.

Modules are imported when they are first named, as in ``pags_jax.gradients.input_gradients``.

| module | what is in it |
|---|---|
| ``datasets`` | Fashion-MNIST, MNIST, CIFAR, ImageNet-64; images beside a distractor |
| ``images`` | what images and labels must be |
| ``per_example`` | what a model must be; detects a model that was left in training mode |
| ``augmentation`` | random crops and flips inside ``jit`` |
| ``models`` | LeNet, ResNets, VGG-11; trained networks in files, ours and published ones |
| ``recipes`` | how robust models are trained: rates, augmentation and held-out images of a sweep |
| ``strengths`` | every loss by name with its strengths, without JAX |
| ``model_names`` | the classifiers by name, without JAX |
| ``likelihood`` | the log-probability of a label, accurate even where the model is sure |
| ``losses`` | cross-entropy, gradient-norm, smoothness, randomized-smoothing, adversarial and score-aligned training |
| ``auxiliary`` | what a loss carries beside its value, and losses of your own that carry nothing |
| ``wrappers`` | turn sigmoid models, models of standardised images, denoised and smoothed ones into ordinary models |
| ``margins`` | the losses that attacks increase |
| ``attacks`` | projected gradient ascent, per example or per batch |
| ``apgd`` | auto-PGD, also towards targets |
| ``balls``, ``ascent`` | what attacks share |
| ``training`` | train state, one pure step, epochs |
| ``resuming`` | training that gives the same result after a kill (extra ``checkpoints``) |
| ``checkpoints`` | training states on disk, written atomically (extra ``checkpoints``) |
| ``evaluation`` | accuracy, clean and under attack |
| ``smoothing`` | certified radii and predictions of a classifier under noise |
| ``binomial`` | bounds on a probability from counts of draws |
| ``gradients`` | input gradients of logits, log-probabilities, losses and energies; smoothed and integrated ones |
| ``scores`` | denoisers, the score of noisy images, the Bayes classifier's gradient |
| ``preconditioning`` | makes denoisers from networks |
| ``sampling`` | Euler's step, and in-painting by a denoiser |
| ``generative`` | training of denoisers and autoencoders |
| ``quality`` | losses and errors of trained denoisers and autoencoders |
| ``manifold`` | tangent spaces of the data, from a decoder, from neighbours, or from a denoiser |
| ``tangents`` | tangent spaces of many images, one after the other |
| ``bases`` | projections, ranks and angles of tangent spaces |
| ``linalg`` | factorisations that are mapped over images |
| ``robustness`` | how far predictions move on and off the manifold, and under noise on a part |
| ``steps`` | noise, and unit steps along its parts on and off the manifold |
| ``shares`` | how much of a gradient, or of a response to noise, is off the manifold |
| ``alignment`` | cosine and LPIPS of gradients and scores |
| ``bayes`` | synthetic images whose posterior, gradient, tangent space and score are known |
| ``bayes_networks`` | networks trained on these images, beside the Bayes-optimal model |
| ``regimes`` | weak, aligned and excessive robustness in a sweep |
| ``sweeps`` | a table of trained models as curves, regimes and correlations |
| ``questions`` | the paper's claims about a sweep, as questions with a test for each |
| ``drawing_questions`` | the same of what gradients draw, and of models trained to align |
| ``explanation`` | which measure of a model predicts alignment, in words |
| ``statistics`` | paired bootstrap over images, rank correlations over models |
| ``means`` | means over images with their errors, and over batches, as columns of rows |
| ``samples`` | test images to measure every model on |
| ``generation`` | synthesis, counterfactuals, denoising and in-painting by a classifier's gradient |
| ``drawing`` | drawing tasks, image-to-image among them, solved by a classifier or a denoiser, and the quality |
| ``gaussians`` | a Gaussian for each class of images, from which synthesis starts |
"""

import importlib
import importlib.metadata
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pags_jax import (
        alignment,
        apgd,
        attacks,
        augmentation,
        bases,
        bayes,
        bayes_networks,
        binomial,
        checkpoints,
        datasets,
        drawing,
        drawing_questions,
        evaluation,
        explanation,
        gaussians,
        generation,
        generative,
        gradients,
        images,
        likelihood,
        losses,
        manifold,
        margins,
        means,
        models,
        preconditioning,
        quality,
        questions,
        recipes,
        regimes,
        resuming,
        robustness,
        samples,
        sampling,
        scores,
        shares,
        smoothing,
        statistics,
        steps,
        strengths,
        sweeps,
        tangents,
        training,
        wrappers,
    )

__all__ = [
    "alignment",
    "apgd",
    "attacks",
    "augmentation",
    "bases",
    "bayes",
    "bayes_networks",
    "binomial",
    "checkpoints",
    "datasets",
    "drawing",
    "drawing_questions",
    "evaluation",
    "explanation",
    "gaussians",
    "generation",
    "generative",
    "gradients",
    "images",
    "likelihood",
    "losses",
    "manifold",
    "margins",
    "means",
    "models",
    "preconditioning",
    "quality",
    "questions",
    "recipes",
    "regimes",
    "resuming",
    "robustness",
    "samples",
    "sampling",
    "scores",
    "shares",
    "smoothing",
    "statistics",
    "steps",
    "strengths",
    "sweeps",
    "tangents",
    "training",
    "wrappers",
]

try:
    __version__ = importlib.metadata.version("fmu-pags-jax")
except importlib.metadata.PackageNotFoundError:  # A checkout on the path, not installed.
    __version__ = "0+unknown"


def __getattr__(name: str) -> ModuleType:
    """A module, imported now that it is named; see PEP 562."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of modules, also of those not imported yet."""
    return sorted({*globals(), *__all__})
