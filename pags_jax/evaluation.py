"""How often a classifier is right, on images without an attack and under attack.

``correct``, ``under_attack`` and ``robustly_correct`` judge each example of a batch; ``accuracy`` averages such a
judgement over a data set in batches of one size, so that a jitted one compiles once. To judge many models with one
program, pass the model as a pytree, ``jax.tree_util.Partial(model.apply, variables)``, and ``jit`` the judgement.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Shaped

from pags_jax.apgd import apgd, apgd_targeted
from pags_jax.attacks import pgd
from pags_jax.balls import Norm
from pags_jax.chunks import check_counts
from pags_jax.images import as_images, as_labels, as_wide, check_classes, check_labels, to_float
from pags_jax.margins import correct_logits
from pags_jax.per_example import check_alone, check_classifier, in_evaluation

#: "pgd" starts at random and at the image; "ensemble" adds APGD-CE and APGD-T.
Attack = Literal["pgd", "ensemble"]


class Verdict(NamedTuple):
    """The verdicts on each example; an example that is right without an attack is robust, fooled, or in
    ``no_gradient``.

    Attributes:
      correct: Right as it is.
      robust: Right as it is and under every attack, of which one on the margin had a gradient all the way.
      no_gradient: Right so far, but every attack on the margin met a gradient that was zero or not finite: nothing is
        known.
    """

    correct: Bool[Array, " n"]
    robust: Bool[Array, " n"]
    no_gradient: Bool[Array, " n"]


def correct(apply_fn: Callable[[Any], Any], x: Float[Array, "n ..."], y: Integer[Array, " n"]) -> Bool[Array, " n"]:
    """Whether all logits are finite and the label's is the largest.

    A tie is wrong: it says that the arithmetic (bfloat16, or logits that were shifted by 1e9) cannot tell classes
    apart. A traced label that is no class is wrong.

    Args:
      apply_fn: Maps images to logits ``(n, classes)``, at least two, each example by itself.
      x: Images in [0, 1].
      y: Labels.

    Returns:
      One truth value for each example.

    Raises:
      ValueError: Images, labels or a model that do not fit, or one in training.

    >>> correct(lambda x: x, jnp.eye(3), jnp.array([0, 1, 1]))
    Array([ True,  True, False], dtype=bool)
    """
    x = as_images(x)
    check_labels(y, x)
    with in_evaluation():
        check_classes(apply_fn, x, y)
    check_alone(apply_fn, x)
    return correct_logits(apply_fn(x), as_labels(y))


def under_attack(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    *,
    key: Array,
    eps_l2: Any = None,
    eps_linf: Any = None,
    steps: int,
    attack: Attack = "pgd",
    bounds: tuple[Any, Any] | None = (0.0, 1.0),
    unroll: bool = False,
) -> Verdict:
    """Attacks each example in several ways, and reports which stay right, and which no attack could test.

    "pgd" is ``attacks.pgd`` on the margin, once from a random start and once from the image itself, with the best point
    of each. "ensemble" adds ``apgd`` on the cross-entropy and ``apgd_targeted``. An example is fooled if any of them
    fools it. Logits are first divided by their spread at the image, so that neither scale nor offset of all logits
    matters, as far as the model's own arithmetic tells classes apart.

    Args:
      apply_fn: Maps images to logits ``(n, classes)``, each example by itself; see ``wrappers`` for others.
      x: Images in [0, 1].
      y: Labels.
      key: PRNG key of the random starts.
      eps_l2: Radius in the Euclidean norm, one or one for each example, traced.
      eps_linf: Radius in the largest absolute value; exactly one of the two is given.
      steps: Number of steps of each attack.
      attack: "pgd" or "ensemble".
      bounds: Bounds of attacked images, each one number or one for each channel.
      unroll: As for ``attacks.pgd``.

    Returns:
      A verdict. Attacks need not find the worst case: ``robust`` and ``no_gradient`` together are an upper bound.

    Raises:
      ValueError: An unknown attack, or what ``attacks.pgd`` refuses.

    >>> apply_fn = lambda x: jnp.stack([x[:, 0], 1 - x[:, 0]], axis=1)  # class 0 above one half
    >>> flat = lambda x: jax.lax.stop_gradient(apply_fn(x))
    >>> x, y, key = jnp.array([[0.6], [0.9]]), jnp.array([0, 0]), jax.random.key(0)
    >>> under_attack(apply_fn, x, y, key=key, eps_linf=0.2, steps=10).robust
    Array([False,  True], dtype=bool)
    >>> under_attack(flat, x, y, key=key, eps_linf=0.01, steps=10).no_gradient
    Array([ True,  True], dtype=bool)
    """
    if attack not in get_args(Attack):
        raise ValueError(f"unknown attack {attack!r}; known: {', '.join(get_args(Attack))}")
    x = as_images(x)
    check_classifier(apply_fn, x, y)
    y = as_labels(y)
    logits = as_wide(apply_fn(x))
    right, spread = correct_logits(logits, y), _spread(logits)

    def scaled(x):
        return as_wide(apply_fn(x)) / spread

    given: dict[str, Any] = {
        "eps_l2": eps_l2, "eps_linf": eps_linf, "steps": steps, "bounds": bounds, "unroll": unroll,
        "with_outcome": True,
    }  # fmt: skip
    margin: dict[str, Any] = given | {"loss": "margin", "best_step": True}
    at_image = x - x  # Zeros that XLA does not take for a constant, whose norms it would compute while compiling.
    found = [pgd(scaled, x, y, key=key, **margin), pgd(scaled, x, y, key=None, start=at_image, **margin)]
    if attack == "ensemble":
        for_apgd, for_targeted = jax.random.split(key)
        found += [apgd(scaled, x, y, key=for_apgd, **given), apgd_targeted(scaled, x, y, key=for_targeted, **given)]
    stays = right
    for one in found:
        # Judged anew: by the model itself, at the image that is returned.
        stays &= correct_logits(apply_fn(x + one.delta), y) & ~one.fooled
    # Of the margin alone: the other losses rise by classes that are far behind, also where the first two are flat.
    blind = found[0].no_gradient & found[1].no_gradient
    return Verdict(right, stays & ~blind, stays & blind)


def robustly_correct(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    *,
    key: Array,
    eps_l2: Any = None,
    eps_linf: Any = None,
    steps: int,
    attack: Attack = "pgd",
    bounds: tuple[Any, Any] | None = (0.0, 1.0),
    unroll: bool = False,
) -> Bool[Array, " n"]:
    """Whether an example is classified rightly both as it is and under attacks that had a gradient.

    This is the field ``robust`` of ``under_attack``, which takes the same arguments and also reports missing gradients.

    >>> apply_fn = lambda x: jnp.stack([x[:, 0], 1 - x[:, 0]], axis=1)  # class 0 above one half
    >>> x, y = jnp.array([[0.6], [0.9]]), jnp.array([0, 0])
    >>> robustly_correct(apply_fn, x, y, key=jax.random.key(0), eps_l2=0.2, steps=10)
    Array([False,  True], dtype=bool)
    """
    given: dict[str, Any] = {"eps_l2": eps_l2, "eps_linf": eps_linf, "bounds": bounds, "unroll": unroll}
    return under_attack(apply_fn, x, y, key=key, steps=steps, attack=attack, **given).robust


def accuracy(
    judge: Callable[[Any, Any, Any], Any],
    x: Shaped[Array, "n ..."],
    y: Integer[Array, " labels"],
    *,
    key: Array,
    batch_size: int = 500,
) -> Any:
    """The share of examples that a judgement finds right.

    Args:
      judge: ``judge(x, y, key) -> (batch_size,)`` truth values, or a tree of them such as a ``Verdict``; ``jit`` it.
        The key differs between batches.
      x: Images, as ``judge`` takes them.
      y: Labels.
      key: PRNG key.
      batch_size: Batch size of every call; the last batch is filled up with copies of the first example, which do not
        count.

    Returns:
      A share in [0, 1], or a tree of them.

    Raises:
      ValueError: No images, not as many labels, or a batch size below 1.

    >>> judge = lambda x, y, key: correct(lambda x: x, x, y)
    >>> accuracy(judge, jnp.eye(4), jnp.array([0, 1, 1, 3]), key=jax.random.key(0), batch_size=3)
    0.75
    """
    check_counts(batch_size=batch_size)
    if not len(x) or len(y) != len(x):
        raise ValueError(f"expected as many labels as images, and at least one, got {len(y)} and {len(x)}")
    judged = []
    for number, start in enumerate(range(0, len(x), batch_size)):
        rows = np.arange(start, start + batch_size)
        batch = np.where(rows < len(x), rows, 0)
        judged.append(judge(x[batch], y[batch], jax.random.fold_in(key, number)))
    return jax.tree.map(lambda *parts: float(np.concatenate(parts)[: len(x)].mean()), *judged)


class Accuracies(NamedTuple):
    """How often a classifier is right.

    Attributes:
      clean: Share of the images that are classified rightly as they are.
      robust: For each radius, the share of the attacked images that stays right.
      no_gradient: For each radius, the number of images that stayed right though no attack on them had a gradient all
        the way, so that nothing is known of them; they are not among the former.
    """

    clean: float
    robust: list[float]
    no_gradient: list[int]


def judge_as_is(apply_fn: Callable[[Any], Any], x: Any, y: Any, key: Any) -> Bool[Array, " n"]:
    """``correct``, of images in [0, 1] or bytes, as ``accuracies`` calls it; the key is not used."""
    del key
    return correct(apply_fn, to_float(x), y)


def judge_within(
    apply_fn: Callable[[Any], Any], radius: Any, x: Any, y: Any, key: Any, *, norm: Norm, **options: Any
) -> Verdict:
    """``under_attack`` within a radius in a norm, of images in [0, 1] or bytes, as ``accuracies`` calls it."""
    return under_attack(apply_fn, to_float(x), y, key=key, **{f"eps_{norm}": radius}, **options)


def accuracies(
    apply_fn: Callable[[Any], Any], x: Shaped[Array, "n ..."], y: Integer[Array, " n"], *, key: Array,
    radii: Sequence[float] = (), rows: int | None = None, batch_size: int = 250,
    as_is: Callable[..., Any] = judge_as_is, within: Callable[..., Any] = judge_within, **attack: Any,
) -> Accuracies:  # fmt: skip
    """Accuracy on images without an attack, and under attack within several radii.

    Args:
      apply_fn: Maps images to logits; a pytree, if the judgements are jitted.
      x: Images as bytes, as data sets hold them; others with judges of your own.
      y: Labels.
      key: PRNG key.
      radii: Radii of the attacks, for pixels in [0, 1].
      rows: How many images are attacked, counted from the first; by default all.
      batch_size: As for ``accuracy``.
      as_is: ``judge_as_is``, best under a ``jit`` of your own.
      within: ``judge_within``, likewise, with the options of the attack static.
      **attack: ``norm`` ("l2" or "linf"), ``steps`` and other options of ``under_attack``.

    >>> x, y = jnp.eye(4, dtype=jnp.uint8), jnp.array([0, 1, 1, 3])
    >>> found = accuracies(lambda x: x, x, y, key=jax.random.key(0))
    >>> found.clean, found.robust
    (0.75, [])
    """

    def share(judge: Any, x: Any, y: Any) -> Any:
        return accuracy(judge, x, y, key=key, batch_size=min(batch_size, len(x)))

    clean = share(partial(as_is, apply_fn), x, y)
    x, y = x[:rows], y[:rows]
    found = [share(partial(within, apply_fn, radius, **attack), x, y) for radius in radii]
    return Accuracies(clean, [one.robust for one in found], [round(one.no_gradient * len(x)) for one in found])


def _spread(logits: Array) -> Array:
    """Largest minus smallest logit of each example ``(n, 1)``; 1 where that is 0 or not finite."""
    spread = jnp.max(logits, -1, keepdims=True) - jnp.min(logits, -1, keepdims=True)
    return jax.lax.stop_gradient(jnp.where((spread > 0) & jnp.isfinite(spread), spread, 1))
