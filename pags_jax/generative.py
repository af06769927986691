r"""Training denoisers and autoencoders: one pure step of Adam, and a mean of the parameters over the steps.

    m, v    <- Adam's moments of g = d loss / d params (Kingma and Ba 2015)
    params  <- params - rate(t) m' / (sqrt(v') + 1e-8),      m', v' without bias
    average <- average + w_t (params - average),             w_t = (1 - decay) / (1 - decay^t)

``average`` is the exponential moving average of the parameters after steps ``s`` = 1 to ``t``, without the bias of a
start: weights in proportion to ``decay^(t - s)`` that add up to one. It is what is used after training. The rate rises
linearly, then is constant or falls along a cosine to zero.

What is trained is a ``training.Task`` whose loss is one of this module's, and its epochs are ``training.steps`` and
``training.scan_epoch``. Draws depend on the key and the number of the step, so that a resumed run replays.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, UInt8

from pags_jax import scores
from pags_jax.images import to_float
from pags_jax.training import Task

ADAM = (0.9, 0.999)
"""Decays of its two moments."""


class Hyper(NamedTuple):
    """Hyper-parameters, all traced.

    Attributes:
      learning_rate: The largest.
      warm_up: Steps until it is reached.
      total_steps: Where the cosine ends at zero; infinite for a constant rate.
      decay: Decay of the average.
    """

    learning_rate: Any
    warm_up: Any = 0
    total_steps: Any = np.inf
    decay: Any = 0.999


class TrainState(NamedTuple):
    """Everything that training changes, and the key that it draws from.

    Attributes:
      step: Steps done.
      params: Parameters.
      average: Their moving average.
      first: Adam's first moment, with the bias of its start at zero.
      second: The second one.
      key: PRNG key, never changed.
    """

    step: Int[Array, ""]
    params: Any
    average: Any
    first: Any
    second: Any
    key: Array


class Metrics(NamedTuple):
    """Measurements of one step, taken before its update.

    Attributes:
      loss: Loss of the batch.
      grad_norm: Euclidean norm of its gradient.
    """

    loss: Float[Array, "..."]
    grad_norm: Float[Array, "..."]


def denoising(
    model: Any,
    variables: Any,
    x: Float[Array, "n h w c"],
    y: Int[Array, " n"],
    key: Array,
    *,
    unlabelled: float = 0.15,
) -> Float[Array, ""]:
    """The mean of ``scores.denoising_loss`` at drawn noise levels and noise.

    A share of the labels is hidden, so that one network learns to denoise with and without knowing the class (Ho and
    Salimans, *Classifier-Free Diffusion Guidance*, 2022).

    Args:
      model: See ``scores.denoiser``.
      variables: Its variables.
      x: Images in [0, 1].
      y: Labels.
      key: PRNG key.
      unlabelled: Probability that a label is hidden.

    Returns:
      A scalar.
    """
    for_labels, for_levels, for_noise = jax.random.split(key, 3)
    labels = hide_labels(y, key=for_labels, probability=unlabelled, null=model.classes)
    sigma = scores.noise_levels(for_levels, x.shape[0], dtype=x.dtype)
    noise = jax.random.normal(for_noise, x.shape, x.dtype)
    # Not `scores.denoiser`, to which a hidden label is none.
    denoise = scores.preconditioned(Partial(model.apply, variables, labels=labels), sigma_data=model.sigma_data)
    return scores.denoising_loss(denoise, 2 * x - 1, sigma, noise, sigma_data=model.sigma_data).mean()


def hide_labels(y: Int[Array, " n"], *, key: Array, probability: float, null: int) -> Int[Array, " n"]:
    """Replaces each label by ``null`` with the given probability.

    >>> hide_labels(jnp.array([3, 4]), key=jax.random.key(0), probability=1.0, null=10).tolist()
    [10, 10]
    """
    return jnp.where(jax.random.bernoulli(key, probability, y.shape), jnp.asarray(null, y.dtype), y)


def reconstruction(
    model: Any, variables: Any, x: Float[Array, "n h w c"], y: Any = None, key: Any = None
) -> Float[Array, ""]:
    """An autoencoder's mean squared error per pixel of images in [0, 1]; ``y`` and ``key`` are not used."""
    del y, key
    return jnp.mean((model.apply(variables, x) - x) ** 2)


def init(task: Task, x: UInt8[Array | np.ndarray, "n h w c"], *, key: Array) -> TrainState:
    """A fresh state for images of this shape; ``key`` is required and draws parameters and all of the training."""
    for_params, for_training = jax.random.split(key)
    params = jax.jit(task.model.init)(for_params, jnp.zeros((1, *x.shape[1:]), jnp.float32))["params"]
    return fresh(params, key=for_training)


def fresh(params: Any, *, key: Array) -> TrainState:
    """The state before the first step."""
    average, first, second = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
    return TrainState(jnp.zeros((), jnp.int32), params, average, first, second, key)


def step(
    task: Task,
    state: TrainState,
    x: UInt8[Array | np.ndarray, "n h w c"],
    y: Int32[Array | np.ndarray, " n"],
    hyper: Hyper,
) -> tuple[TrainState, Metrics]:
    """One step on a batch: augment, differentiate, update. Pure; ``jit`` it with ``task`` static.

    Args:
      task: Its loss is called as ``loss(model, variables, x, y, key)``.
      state: As it is.
      x: Images.
      y: Labels.
      hyper: What is traced.

    Returns:
      The state after it, and what it says of itself.
    """
    for_steps, _ = jax.random.split(state.key)
    for_augment, for_loss = jax.random.split(jax.random.fold_in(for_steps, state.step))
    dtype = jax.tree.leaves(state.params)[0].dtype
    images = task.augment(for_augment, to_float(x, dtype))

    def loss(params):
        return task.loss(task.model, {"params": params}, images, jnp.asarray(y), for_loss)

    value, gradients = jax.value_and_grad(loss)(state.params)
    return update(state, gradients, hyper), Metrics(value, optax.tree.norm(gradients))


def update(state: TrainState, gradients: Any, hyper: Hyper) -> TrainState:
    """The state after one step with these gradients of the parameters."""
    rate, steps = learning_rate(hyper, state.step), (state.step + 1).astype(jnp.float32)
    first = optax.tree.update_moment(gradients, state.first, ADAM[0], 1)
    second = optax.tree.update_moment(gradients, state.second, ADAM[1], 2)
    first_total, second_total = (_total(decay, steps) for decay in ADAM)
    share = _total(hyper.decay, 1.0) / _total(hyper.decay, steps)

    def moved(p, m, v):
        m, v = m / first_total.astype(p.dtype), v / second_total.astype(p.dtype)
        return p - rate.astype(p.dtype) * m / (jnp.sqrt(v) + 1e-8)

    params = jax.tree.map(moved, state.params, first, second)
    average = jax.tree.map(lambda a, p: a + share.astype(p.dtype) * (p - a), state.average, params)
    return TrainState(state.step + 1, params, average, first, second, state.key)


def _total(decay: Any, steps: Any) -> Float[Array, ""]:
    """``1 - decay^steps``, the weight in an exponential mean of so many steps, in float32 without cancellation."""
    return -jnp.expm1(jnp.float32(steps) * jnp.log(jnp.asarray(decay, jnp.float32)))


def learning_rate(hyper: Hyper, step: Any) -> Float[Array, ""]:
    """The rate of a step, counted from 0, in float32.

    >>> [round(learning_rate(Hyper(1.0, 2, 10), step).item(), 3) for step in (0, 1, 5, 10)]
    [0.5, 0.976, 0.5, 0.0]
    """
    largest, warm_up, total = (
        jnp.asarray(value, jnp.float32) for value in (hyper.learning_rate, hyper.warm_up, hyper.total_steps)
    )
    step = jnp.asarray(step, jnp.float32)
    rise = jnp.minimum(1.0, (step + 1) / jnp.maximum(warm_up, 1.0))
    fall = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / total, 1.0)))
    return largest * rise * fall
