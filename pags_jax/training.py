r"""Training a classifier: one pure step, and an epoch of it over images that lie on the device.

    g     <- d loss / d params, shortened to at most clip
    g     <- g + weight_decay params
    m     <- momentum m + g
    params <- params - rate(step) m,       rate = learning_rate * 0.1^(milestones passed) * rise(step) * fall(step)

where ``rise`` goes from 0 to 1 over the first ``warm_up`` steps and ``fall`` from 1 to 0 over the others up to
``total_steps``, both linearly; by default both are 1.

A ``Task`` is static: what is compiled. ``Hyper`` is traced: strengths, rates and milestones vary without compiling
again. Draws depend on the key and the number of the step, the order of the rows on the key and the number of the epoch,
so that a resumed run replays what an uninterrupted one does.

Differs from the reference: P6 an attack's gradients are not added to the parameters' and P7 an attack does not move
running statistics; P8 every batch has the same size, the rows left over sit out this epoch.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int32, UInt8

from pags_jax import losses, models
from pags_jax.augmentation import Augmentation, unchanged
from pags_jax.auxiliary import carrying_aux
from pags_jax.chunks import check_counts
from pags_jax.finite import check_all_finite as check_all_finite
from pags_jax.finite import check_finite as check_finite
from pags_jax.images import check_examples, to_float
from pags_jax.schedules import milestones as milestones
from pags_jax.schedules import schedule as schedule


@dataclass(frozen=True)
class Task:
    """The static part of training, which is compiled once.

    Attributes:
      model: A flax.linen module called as ``model(x, train=...)``, or another name for that (``models.mode``), or
        without; running statistics are its collection ``batch_stats``, and dropout draws from the state's key.
      loss: One of ``losses``, or your own ``loss(apply_fn, x, y, key, strength)``, a mean over the batch; options are
        bound with ``functools.partial``.
      augment: Maps ``(key, x)`` to ``x``.
      batch_size: Examples in a step.
      frozen: Whether the model is trained as it will be used, each example by itself, without dropout and with the
        running statistics that it started with. Batch statistics couple the images of a batch, so that a penalty on
        input gradients else acts on gradients that the model in use does not have.
    """

    model: nn.Module
    loss: Callable[..., Any] = losses.cross_entropy
    augment: Augmentation = unchanged
    batch_size: int = 128
    frozen: bool = False


class Hyper(NamedTuple):
    """Hyper-parameters, all traced.

    Attributes:
      strength: Strength of the loss.
      learning_rate: Learning rate at the start.
      milestones: Steps after which the rate is a tenth of what it was.
      momentum: Share of the last update that is kept.
      weight_decay: Added to the gradient, times the parameters; all of them, as in the reference.
      clip: Largest Euclidean norm of the loss's gradient; longer ones are shortened to it (Pascanu et al. 2013).
      warm_up: Steps in which the rate rises.
      total_steps: Step at which the rate has fallen to zero; infinite for a rate that only milestones lower.
    """

    strength: Any
    learning_rate: Any
    milestones: Any
    momentum: Any = 0.9
    weight_decay: Any = 5e-4
    clip: Any = np.inf
    warm_up: Any = 0
    total_steps: Any = np.inf


class TrainState(NamedTuple):
    """Everything that training changes, and the key that it draws from.

    Attributes:
      step: Steps done.
      params: Parameters.
      statistics: Running statistics; empty where the model has none.
      optimizer: The optimiser's state.
      key: PRNG key, never changed.
    """

    step: Int[Array, ""]
    params: Any
    statistics: Any
    optimizer: Any
    key: Array


class Metrics(NamedTuple):
    """Measurements of one step, taken before its update.

    Attributes:
      loss: The whole loss.
      accuracy: Accuracy of the forward pass that was trained on.
      grad_norm: Euclidean norm of the gradient, without weight decay, before it is shortened.
    """

    loss: Float[Array, "..."]
    accuracy: Float[Array, "..."]
    grad_norm: Float[Array, "..."]


def init(task: Task, x: UInt8[Array | np.ndarray, "n h w c"], *, key: Array) -> TrainState:
    """A fresh state for images of this shape; ``key`` is required and draws parameters and all of the training."""
    for_params, for_training = jax.random.split(key)
    variables = models.init(task.model, x, key=for_params)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        statistics=variables.get("batch_stats", {}),
        optimizer=_descent(0.0, 0.0, 0.0).init(params),
        key=for_training,
    )


def step(
    task: Task,
    state: TrainState,
    x: UInt8[Array | np.ndarray, "n h w c"],
    y: Int32[Array | np.ndarray, " n"],
    hyper: Hyper,
) -> tuple[TrainState, Metrics]:
    """One step on a batch: augment, differentiate, update. Pure; ``jit`` it with ``task`` static."""
    for_steps, _ = jax.random.split(state.key)
    for_step = jax.random.fold_in(for_steps, state.step)
    for_augment, for_loss = jax.random.split(for_step)
    # One mask a step: attacks and penalties then see the network that is trained. The two above are number 0 and 1.
    in_training = models.mode(task.model, train=not task.frozen)
    in_training |= {"rngs": {"dropout": jax.random.fold_in(for_step, 2)}}
    dtype = jax.tree.leaves(state.params)[0].dtype
    images = task.augment(for_augment, to_float(x, dtype))
    strength, rate, momentum, decay, clip = (
        jnp.asarray(value, dtype)
        for value in (hyper.strength, hyper.learning_rate, hyper.momentum, hyper.weight_decay, hyper.clip)
    )

    def total(params):
        variables = {"params": params, "batch_stats": state.statistics}

        def apply_fn(images):
            logits, updated = task.model.apply(variables, images, mutable=["batch_stats"], **in_training)
            return logits, (logits, updated.get("batch_stats", state.statistics))

        return carrying_aux(task.loss)(apply_fn, images, y, for_loss, strength, has_aux=True)

    (loss, (logits, statistics)), gradients = jax.value_and_grad(total, has_aux=True)(state.params)
    right = jnp.equal(jnp.argmax(logits, -1).astype(jnp.int32), y).astype(loss.dtype)
    length = optax.tree.norm(gradients)
    metrics = Metrics(loss, right.mean(), length)
    gradients = optax.tree.scale(jnp.where(length > clip, clip / length, 1), gradients)
    descent = _descent(momentum, decay, rate * schedule(hyper, state.step).astype(dtype))
    updates, optimizer = descent.update(gradients, state.optimizer, state.params)
    return TrainState(
        state.step + 1, optax.apply_updates(state.params, updates), statistics, optimizer, state.key
    ), metrics


def _descent(momentum: Any, weight_decay: Any, rate: Any) -> optax.GradientTransformation:
    """Momentum as PyTorch has it: the rate multiplies the sum, not what goes into it."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum), optax.scale(-rate))


_step = jax.jit(step, static_argnames="task", donate_argnames="state")


def order(task: Task, state: Any, rows: int) -> Int[Array, "steps batch"]:
    """The rows of every batch of the epoch that ``state``, or another one with ``step`` and ``key``, is in."""
    steps = steps_per_epoch(task, rows)
    _, for_order = jax.random.split(state.key)
    shuffled = jax.random.permutation(jax.random.fold_in(for_order, state.step // steps), rows)
    return shuffled[: steps * task.batch_size].reshape(steps, task.batch_size)


_order = jax.jit(order, static_argnames=("task", "rows"))


def _anywhere(rows: Array) -> Array:
    return rows


def variables_of(state: TrainState) -> dict[str, Any]:
    """The variables of the network as ``model.apply`` takes them: parameters, and running statistics if it has any."""
    return {"params": state.params} | ({"batch_stats": state.statistics} if state.statistics else {})


def steps_per_epoch(task: Task, rows: int) -> int:
    """Whole batches among the rows.

    Raises:
      ValueError: Fewer rows than a batch, or a batch size that is no whole number of at least 1.
    """
    check_counts(batch_size=task.batch_size)
    if rows < task.batch_size:
        raise ValueError(f"a batch of {task.batch_size} needs as many images, got {rows}; use a smaller `batch_size`")
    return rows // task.batch_size


@partial(jax.jit, static_argnames=("task", "one_step", "place"), donate_argnames="state")
def scan_epoch(
    task: Task,
    state: Any,
    x: Array,
    y: Array,
    hyper: Any,
    *,
    one_step: Callable[..., Any] = step,
    place: Callable[[Array], Array] = _anywhere,
) -> tuple[Any, Any]:
    """One epoch inside one program: for accelerators. Metrics have a row for each step.

    ``state`` is donated and must not be used again. On CPUs ``steps`` is faster: convolutions are slow in loops.
    ``one_step`` is ``step``, or one of the same signature, such as ``generative.step``. ``place`` says on which devices
    the rows of the batches, ``(steps, batch)``, lie, and with them the examples; statistics are those of whole batches.
    """

    def body(state, rows):
        return one_step(task, state, x[rows], y[rows], hyper)

    return jax.lax.scan(body, state, place(order(task, state, x.shape[0])))


def steps(
    task: Task,
    state: Any,
    x: Array,
    y: Array,
    hyper: Any,
    *,
    compiled_step: Callable[..., Any] = _step,
    place: Callable[[Array], Array] = _anywhere,
) -> Iterator[tuple[Any, Any]]:
    """The rest of the current epoch, step by step: for CPUs, and to save state in between.

    ``compiled_step`` is ``step`` under a ``jit`` of your own, such as one with compiler options, or one of the same
    signature. Yields states and metrics on the device; a state that was yielded is donated to the next step. ``place``
    is as for ``scan_epoch``.

    Raises:
      ValueError: Not one label for each image, or labels that are no classes of the model, if it has ``classes``.
    """
    check_examples(x, y, getattr(task.model, "classes", None) or None)
    rows = place(_order(task, state, x.shape[0]))
    for number in range(int(state.step) % len(rows), len(rows)):
        batch = rows[number]  # Not ``for batch in rows``, which would move every row to all devices.
        state, metrics = compiled_step(task, state, x[batch], y[batch], hyper)
        yield state, metrics


def train(
    task: Task, x: Any, y: Any, hyper: Any, *, epochs: int, key: Array, compiled_step: Callable[..., Any] = _step
) -> TrainState:
    """Trains a classifier from its initialisation to the end, step by step, without checkpoints (see ``resuming``).

    Args:
      task: The model, its loss and batches.
      x: Training images, ``(n, h, w, c)`` uint8.
      y: Their labels, ``(n,)``.
      hyper: The ``Hyper``; of ``milestones`` use ``steps_per_epoch(task, n)``.
      epochs: Number of epochs.
      key: PRNG key of the initialisation and of all of the training.
      compiled_step: As for ``steps``.

    Raises:
      ValueError: As ``steps``.
      FloatingPointError: The parameters at the end are not finite.
    """
    state, x, y = init(task, x, key=key), jnp.asarray(x), jnp.asarray(y)
    for _ in range(epochs):
        ((state, _),) = deque(steps(task, state, x, y, hyper, compiled_step=compiled_step), maxlen=1)
    check_all_finite(state)
    return state
