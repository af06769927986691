"""Perceptually-aligned gradients in JAX: robust models, their input gradients, and what these align with.

After Srinivas, Bordt and Lakkaraju, *Which Models have Perceptually-Aligned Gradients? An Explanation via Off-Manifold
Robustness* (NeurIPS 2023). Images are ``(n, height, width, channels)`` floats in [0, 1]; a model is a function
``apply_fn(x) -> logits`` of shape ``(n, classes)``.

Nothing is built yet but this map. To come:

    models: LeNet, ResNets, VGG-11, an autoencoder, a small denoising U-Net.
    losses: cross-entropy, gradient-norm, smoothness, randomized-smoothing and adversarial training.
    attacks: projected gradient descent, per example.
    training: train state, one pure step, epochs, checkpoints.
    gradients: input gradients of logits, log-probabilities and losses; smoothed and integrated ones.
    scores: denoising score matching, and the score it learns.
    manifold: tangent spaces of the data, and projection on them.
    robustness: on- and off-manifold robustness of a model.
    alignment: how close gradients are to scores.
    bayes: synthetic manifolds whose Bayes-optimal classifier is known.
    regimes: weak, Bayes-aligned and excessive robustness.
    generation: images from the gradients of a robust classifier.
    datasets: images with, and without, a known manifold.
"""

import importlib.metadata

__all__: list[str] = []

try:
    __version__ = importlib.metadata.version("fmu-pags-jax")
except importlib.metadata.PackageNotFoundError:  # A checkout on the path, not installed.
    __version__ = "0+unknown"
