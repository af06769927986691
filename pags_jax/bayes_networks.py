"""Networks beside the Bayes-optimal model of `bayes`: trained at many strengths of the gradient norm, and compared.

problem = corners("curved", (64,), distractors=22, key=...)
train, truth = images_of(problem, key=..., train_rows=64, test_rows=1000)
networks = fit(Network(32, 2), train, strengths, 3e-3, key=..., steps=500)      # one program for all strengths
compare(Network(32, 2), networks, truth, 0.5, key=...)                          # a value for each strength
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from pags_jax import alignment, bayes, evaluation, gradients, losses, regimes, robustness

Manifold = Literal["linear", "curved"]


class Network(nn.Module):
    """A smooth network of two hidden layers."""

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits of images."""
        x = x.reshape(x.shape[0], -1) - 0.5
        for _ in range(2):
            x = nn.silu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)


def corners(
    manifold: Manifold,
    shape: tuple[int, ...],
    *,
    key: Array,
    radius: float = 3.0,
    signal_std: float = 0.5,
    **plane: Any,
) -> bayes.Problem:
    """Two classes, each in two opposite corners of the signal's plane, so that no linear model is right.

    Args:
      manifold: A plane, or a product of circles of this ``radius``.
      shape: Shape of an image.
      key: Draws the manifold.
      radius: Radius of the circles.
      signal_std: Standard deviation of the signal around each corner.
      plane: ``distractors``, ``distractor_std`` and ``noise``, as for `bayes.linear`.
    """
    for_plane, for_circles = jax.random.split(key)
    means = np.array([[[1, 1], [-1, -1]], [[1, -1], [-1, 1]]], np.float32)
    problem = bayes.linear(shape, means, key=for_plane, signal_std=signal_std, **plane)
    return problem if manifold == "linear" else bayes.curved(problem, radius=radius, key=for_circles)


class Truth(NamedTuple):
    """Images to measure on, and the true quantities at them.

    Attributes:
      x: Images.
      y: Labels.
      posterior: Probabilities of the classes.
      gradient: Gradient of the label's log-probability.
      tangents: Bases of the tangent spaces.
      distractors: Bases of the distractor's part of them.
    """

    x: Array
    y: Array
    posterior: Array
    gradient: Array
    tangents: Array
    distractors: Array


@partial(jax.jit, static_argnames=("train_rows", "test_rows"))
def images_of(problem: bayes.Problem, *, key: Array, train_rows: int, test_rows: int) -> tuple[bayes.Sample, Truth]:
    """Training images, and other images with their truth to measure on.

    Args:
      problem: Draws them.
      key: PRNG key.
      train_rows: Number of training images.
      test_rows: Number of the others.
    """
    images = bayes.sample(problem, train_rows + test_rows, key=key)
    train = bayes.Sample(*(array[:train_rows] for array in images))
    x, y = images.x[train_rows:], images.y[train_rows:]
    posterior, gradient = jnp.exp(bayes.log_posterior(problem, x)), bayes.gradient(problem, x, y)
    return train, Truth(x, y, posterior, gradient, bayes.tangent_basis(problem, x), bayes.distractor_basis(problem, x))


@partial(jax.jit, static_argnames=("model", "steps"))
def fit(
    model: Any, train: bayes.Sample, strengths: Float[Array, " k"], learning_rate: Any, *, key: Array, steps: int
) -> Any:
    """Variables of one network for each strength of the gradient norm, all trained from the same initial variables.

    Args:
      model: A flax classifier.
      train: Images and labels.
      strengths: ``(k,)``.
      learning_rate: Adam's.
      key: PRNG key, of the initialisation; each step reads all images.
      steps: Number of steps of training.

    Returns:
      Variables with a leading axis ``k``.
    """
    optimizer = optax.adam(learning_rate)
    start = model.init(key, train.x[:1])

    def fit_one(strength):
        def loss(variables):
            apply_fn = partial(model.apply, variables)
            return losses.gradient_norm(apply_fn, train.x, train.y, None, strength)

        def step(state, _):
            variables, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(variables), moments)
            return (optax.apply_updates(variables, updates), moments), None

        return jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)[0][0]

    return jax.vmap(fit_one)(strengths)


@partial(jax.jit, static_argnames="model")
def compare(model: Any, networks: Any, truth: Truth, eps_l2: Any, *, key: Array) -> dict[str, Float[Array, " k"]]:
    """Means over images, one for each network; all see the same images and directions.

    Args:
      model: The flax classifier.
      networks: Variables with a leading axis ``k``, from ``fit``.
      truth: Images and what is known of them.
      eps_l2: Length of the steps on and off the manifold.
      key: PRNG key, of the directions.

    Returns:
      By name, ``(k,)``.

    ``posterior_gap`` is the total variation distance from the posterior, ``cosine`` that between the gradients of the
    label's log-probability and the Bayes-optimal model's, ``unusable_gradients`` the share of images without one.
    """
    x, y = truth.x, truth.y
    correct, off_manifold_share = evaluation.correct, robustness.off_manifold_share

    def measure_one(variables):
        def apply_fn(x: Any) -> Any:
            return model.apply(variables, x)

        gradient = gradients.input_gradients(apply_fn, x, y, target="log_prob")
        moved = robustness.manifold_robustness(apply_fn, x, truth.tangents, eps_l2=eps_l2, key=key, draws=4)
        share = off_manifold_share(gradient, truth.tangents)
        return {
            "accuracy": correct(apply_fn, x, y).mean(),
            "bayes_accuracy": correct(lambda _: truth.posterior, x, y).mean(),
            "posterior_gap": jnp.abs(jax.nn.softmax(apply_fn(x)) - truth.posterior).sum(1).mean() / 2,
            "cosine": jnp.nanmean(alignment.cosine(gradient, truth.gradient)),
            "off_manifold_share": jnp.nanmean(share),
            "distractor_share": 1 - jnp.nanmean(off_manifold_share(gradient, truth.distractors)),
            "on_manifold": jnp.nanmean(moved.on),
            "off_manifold": jnp.nanmean(moved.off),
            "unusable_gradients": jnp.isnan(share).mean(),
        }

    return jax.vmap(measure_one)(networks)


def sweep(
    manifold: Manifold, strengths: Sequence[float], *, key: Array, pixels: int, train_rows: int, test_rows: int,
    width: int, steps: int, learning_rate: float, eps_l2: float, **shape: Any,
) -> list[dict[str, float]]:  # fmt: skip
    """Networks of one draw of everything random beside the Bayes-optimal model: a row of ``compare`` for each strength.

    Args:
      manifold: As for ``corners``.
      strengths: Strengths of the gradient norm; the rows are in ascending order, each strength once.
      key: Draws the manifold, the images, the initial variables and the directions.
      pixels: Number of pixels in an image.
      train_rows: Number of training images.
      test_rows: Number of images to measure on.
      width: Number of units in each hidden layer.
      steps: Number of steps of training.
      learning_rate: Adam's.
      eps_l2: Length of the steps on and off the manifold.
      **shape: As for ``corners``.
    """
    keys, strengths = jax.random.split(key, 4), sorted(set(strengths))
    problem = corners(manifold, (pixels,), key=keys[0], **shape)
    train, truth = images_of(problem, key=keys[1], train_rows=train_rows, test_rows=test_rows)
    model = Network(width, problem.means.shape[0])
    found = fit(model, train, jnp.float32(strengths), learning_rate, key=keys[2], steps=steps)
    measured = compare(model, found, truth, eps_l2, key=keys[3])
    return [
        {"strength": strength} | {name: float(values[k]) for name, values in measured.items()}
        for k, strength in enumerate(strengths)
    ]


def regimes_of(table: Sequence[Mapping[str, Any]], *, tolerance: float) -> regimes.Regimes:
    """The regimes by unit steps of rows of ``sweep``, of one or several draws, see ``regimes.read``."""
    strengths = sorted({row["strength"] for row in table})
    columns = (
        [[row[name] for row in table if row["strength"] == strength] for strength in strengths]
        for name in ("accuracy", "on_manifold", "off_manifold")
    )
    return regimes.read(strengths, *columns, tolerance=tolerance)
