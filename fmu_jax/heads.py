r"""A certified fair linear head on features, for two classes or many: the certified route for deep models.

A deep objective is not convex and has no certificate; the linear model on its features has. Two labels: the head *is*
the linear model, ``y`` ``(n,)``, and every function here hands over to ``fit``, ``remove`` and ``certify``. More
classes: one vs rest, ``y`` ``(k, n)`` with a row for each class, the same functions mapped over classes, each with a
noise of its own. The fairness penalty is that of each class's scores.

The k objectives are one: ``sum_c F_c(theta_c; b_c)`` is convex in ``(theta_1 .. theta_k)``, its noise
``N(0, sigma^2 I)`` in all ``k d`` dimensions, and its gradient theirs one after another. So the residual of the whole
is ``sqrt(sum_c r_c^2)``, and delta is spent once (Guo et al. 2020, Theorem 3, on that objective).

The certificate holds only if no removed row has a part in the features of another row. So each row must be scaled by
itself (``as_rows``), not by the largest norm of the training rows. The extractor must either be trained on other data
and frozen, or be differentially private; ``with_features`` then adds its epsilon and delta.

Differs from the reference: D15 rows of features are scaled one by one, training and test rows alike.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fmu_jax import linalg
from fmu_jax.arrays import as_codes, as_floats
from fmu_jax.certificates import Certificate, certify
from fmu_jax.data import Data, check_data, check_shapes, make_data, without
from fmu_jax.distances import check_certifiable
from fmu_jax.fitting import FitResult, NotConvergedError, fit
from fmu_jax.objective import Objective, Scalar
from fmu_jax.privacy import certified_epsilon, check_norm, check_positive
from fmu_jax.removal import Removal, remove
from fmu_jax.removal.methods import check_forget
from fmu_jax.tracing import at_once, is_traced, when_concrete


def as_rows(features: Any, *, radius: Scalar | None = None) -> Float[Array, "n d"]:
    """Features as rows of the linear model: flattened, of norm at most 1, a constant 1 appended.

    Each row is mapped by itself, ``x / max(|x|, radius)``, so that no row has a part in another.

    Args:
      features: ``(n, ...)``; half precision becomes float32, in which a head is trained and certified.
      radius: Rows up to this norm keep their proportions, longer ones are clipped to it. Choose it without looking at
        rows that may be removed: ``sqrt(width)`` suits units in [-1, 1]. None puts every row on the unit sphere.

    Returns:
      ``(n, d)``, ``d`` the number of features and one.

    Raises:
      ValueError: ``radius`` is not positive, or ``features`` are not finite numbers, (n, ...).

    >>> as_rows(jnp.array([[3.0, 4.0], [0.3, 0.4]]), radius=1.0).round(2).tolist()
    [[0.6, 0.8, 1.0], [0.3, 0.4, 1.0]]
    """
    features = as_floats(features, "features", finite=True)
    if features.ndim < 2:
        raise ValueError(f"`features` must have shape (n, ...), a row for each example; got {features.shape}")
    flat = features.reshape(features.shape[0], math.prod(features.shape[1:]))
    norm = linalg.norm(flat, axis=1, keepdims=True)
    if radius is None:
        scale = jnp.where(norm > 0, norm, 1)
    else:
        check_positive(radius=radius)
        scale = jnp.maximum(norm, radius)
    return jnp.concatenate([flat / scale, jnp.ones_like(norm)], axis=1)


def layer_features(model: Any, variables: Any, x: Array, *, layer: str) -> Float[Array, "n d"]:
    """What a named layer of a flax model puts out, flattened to ``(n, d)``.

    Args:
      model: A flax module.
      variables: Its variables.
      x: A batch of inputs.
      layer: The submodule's name, such as ``Dense_0``.

    Raises:
      ValueError: The model calls no layer of that name; the message lists those that it does.
    """
    _, state = model.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
    outputs = {name: value for name, value in state["intermediates"].items() if name != "__call__"}
    if layer not in outputs:
        raise ValueError(f"the model calls no layer {layer!r}; it calls: {', '.join(outputs)}")
    return jax.tree.leaves(outputs[layer])[-1].reshape(len(x), -1)


def one_vs_rest(x, labels, group, *, classes: int, weight=None, groups: int | None = None) -> Data:
    """``Data`` whose ``y`` is ``(classes, n)``: row ``c`` is 1 where the label is ``c``.

    Args:
      x: Rows, from ``as_rows``.
      labels: ``(n,)`` integers in [0, classes).
      group: As for ``make_data``.
      classes: Number of classes, at least 2.
      weight: As for ``make_data``.
      groups: As for ``make_data``.

    Raises:
      ValueError: A label out of range, or anything that ``make_data`` refuses for any class.
    """
    labels = as_codes(labels, "labels")
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2, got {classes}")
    if not is_traced(labels):
        codes = np.asarray(labels)
        outside = codes[(codes < 0) | (codes >= classes)]
        if outside.size:
            raise ValueError(f"`labels` holds {outside[0]}, but there are {classes} classes, 0 to {classes - 1}")
    y = at_once(lambda labels: (labels[None] == np.arange(classes, dtype=np.int32)[:, None]).astype(jnp.int32), labels)
    first = make_data(x, y[0], group, weight, groups=groups)
    data = first._replace(y=y)
    _check_classes(data, "the data")
    return data


def fit_head(objective: Objective, data: Data, *, noise: Array | None = None, **options) -> FitResult:
    """``fit``, of one head for each class.

    Args:
      objective: Objective for the linear model.
      data: ``y`` is ``(n,)``, or ``(k, n)`` from ``one_vs_rest``.
      noise: ``(d,)``, or ``(k, d)``: drawn for each class.
      **options: Options of ``fit``.

    Returns:
      A ``FitResult``; with classes each field has a leading axis of length ``k``.

    Raises:
      ValueError, NotConvergedError: As ``fit``.
    """
    if data.y.ndim == 1:
        return fit(objective, data, noise=noise, **options)
    _check_head(objective, data, noise, "noise")
    _check_classes(data, "the data")
    throw = options.pop("throw", True)
    axes = (_of_class(data), 0)
    result = jax.vmap(lambda rows, b: fit(objective, rows, noise=b, **options), in_axes=axes)(data, noise)
    if throw and not is_traced(result.converged) and not np.all(result.converged):
        worst = int(jnp.argmax(result.grad_norm))
        raise NotConvergedError(
            f"class {worst} stopped at mean-form gradient norm {float(result.grad_norm[worst]):.3g}"
        )
    return result


def remove_head(objective: Objective, params: Array, data: Data, forget, *, noise: Array | None = None, **options):
    """``remove``, from the head of each class.

    Args:
      objective: Objective on which ``params`` was trained.
      params: ``(d,)``, or ``(k, d)`` from ``fit_head``.
      data: Rows on which it was trained.
      forget: As for ``remove``; a removed row leaves every class.
      noise: Perturbation with which it was trained.
      **options: Options of ``remove``.

    Returns:
      A ``Removal``; with classes its parameters and solver fields have a leading axis of length ``k``.

    Raises:
      ValueError, NotConvergedError: As ``remove``.
    """
    if data.y.ndim == 1:
        return remove(objective, params, data, forget, noise=noise, **options)
    _check_head(objective, data, params, "params")
    _check_head(objective, data, noise, "noise")
    mask = check_forget(data, forget)
    left = without(data, mask)
    _check_classes(left, "what remains after the removal")
    throw = options.pop("throw", True)

    def one(theta, rows, b):
        return remove(objective, theta, rows, mask, noise=b, **options)._replace(data=None, forgotten=None)

    removal = jax.vmap(one, in_axes=(0, _of_class(data), 0))(params, data, noise)
    if throw and not is_traced(removal.converged) and not np.all(removal.converged):
        worst = int(jnp.argmax(removal.residual))
        raise NotConvergedError(f"class {worst} stopped at residual {float(removal.residual[worst]):.3g}")
    return removal._replace(data=left, forgotten=mask)


def certify_head(
    objective: Objective, before: Array, removal: Removal, *, sigma: Scalar, delta: Scalar, noise: Array | None = None
) -> Certificate:
    """``certify``, of the heads of all classes together; arguments and errors as there."""
    if removal.data.y.ndim == 1:
        return certify(objective, before, removal, sigma=sigma, delta=delta, noise=noise)
    check_certifiable(objective, removal._replace(params=removal.params[0]))
    _check_head(objective, removal.data, before, "before")
    _check_head(objective, removal.data, noise, "noise")
    axes = Removal(0, _of_class(removal.data), None, *[0] * 6)  # pyright: ignore[reportArgumentType] - axes, not arrays
    each = jax.vmap(
        lambda theta, part, b: certify(objective, theta, part, sigma=sigma, delta=delta, noise=b), in_axes=(0, axes, 0)
    )(before, removal, noise)
    return combine(each)


def combine(each: Certificate) -> Certificate:
    """One certificate for heads with independent noise, from theirs: norms add in quadrature, delta is spent once.

    Args:
      each: A ``Certificate`` whose fields have a leading axis, all for one ``sigma`` and ``delta``.

    Returns:
      The ``Certificate`` of the stacked parameters ``(k d,)``; its epsilon is infinite where one of them is.
    """
    total = jax.tree.map(linalg.norm, each)
    sigma, delta = each.sigma[0], each.delta[0]
    epsilon = jnp.where(jnp.isfinite(each.epsilon).all(), certified_epsilon(total.residual_norm, sigma, delta), jnp.inf)
    return dataclasses.replace(total, sigma=sigma, delta=delta, objective_perturbation_epsilon=epsilon)


def with_features(certificate: Certificate, *, epsilon: Scalar, delta: Scalar, rows: int) -> Certificate:
    """Adds the (epsilon, delta) of a differentially private extractor, which was trained on the removed rows.

    The extractor's guarantee is for one row; of ``rows`` removed together it is ``rows epsilon`` and
    ``delta (e^(rows epsilon) - 1) / (e^epsilon - 1)`` (group privacy: Dwork & Roth 2014, Theorem 2.2; Vadhan 2017,
    Lemma 2.2). So this route suits few removals, or features from other data, which cost nothing.

    Args:
      certificate: Certificate of the head.
      epsilon: Epsilon of the extractor for one row added or removed, >= 0; zero for features from other data.
      delta: Likewise, >= 0.
      rows: Number of rows removed since the extractor was trained, at least 1.

    Returns:
      The certificate of features and head: epsilons and deltas add. Where its delta reaches 1 it says nothing.

    Raises:
      ValueError: A number out of range.

    Source: Guo et al. (2020), Theorem 5.
    """
    check_norm(epsilon=epsilon)
    check_norm(delta=delta)
    if int(rows) != rows or rows < 1:
        raise ValueError(f"`rows` must be a whole number of at least 1, got {rows}")
    epsilon = jnp.asarray(epsilon, certificate.epsilon.dtype)
    safe = jnp.where(epsilon > 0, epsilon, 1)
    spread = jnp.where(epsilon > 0, jnp.expm1(rows * safe) / jnp.expm1(safe), rows * (1 + (rows - 1) / 2 * epsilon))
    more = jnp.where(delta > 0, delta * spread, 0)
    return dataclasses.replace(
        certificate,
        objective_perturbation_epsilon=certificate.epsilon + rows * epsilon,
        delta=jnp.minimum(certificate.delta + more, 1),
    )


def predict_head(params: Any, x: Any) -> Int[Array, " n"]:
    """Labels ``(n,)`` int32: 1 where the log-odds are positive, or the class of largest score for ``(k, d)`` params."""
    scores = as_floats(x, "x") @ as_floats(params, "params").T
    labels = scores > 0 if scores.ndim == 1 else jnp.argmax(scores, axis=1)
    return labels.astype(jnp.int32)


def _check_classes(data: Data, what: str) -> None:
    check_shapes(data._replace(y=data.y[0]))
    _check_each_class(data, what)


@when_concrete
def _check_each_class(data, what):
    for label, y in enumerate(data.y):
        check_data(data._replace(y=y), what=f"class {label} of {what}")


def _of_class(data: Data) -> Data:
    """Axes of a map over classes: only the labels differ, and the number of groups stays."""
    return data._replace(x=None, y=0, group=None, weight=None)


def _check_head(objective: Objective, data: Data, array: Array | None, name: str) -> None:
    if not objective.linear:
        raise ValueError("a head is a linear model; leave `predict` at None and pass features as the rows")
    expected = (data.y.shape[0], data.x.shape[1])
    if array is not None and jnp.shape(array) != expected:
        raise ValueError(f"`{name}` must have shape {expected}, a head for each class; got {jnp.shape(array)}")
