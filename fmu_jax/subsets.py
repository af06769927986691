"""Train or unlearn a named part of a model, such as its last layer, and keep the rest as it is.

Parameters are named by their paths, ``params/Dense_1/kernel`` for a flax model. A name stands for every array whose
path holds it as whole components: ``Dense_1``, ``params/Dense_1`` and ``Dense_1/kernel`` are names, ``Dense`` is not.

The objective of the part is the same objective with the rest bound as traced arrays (``jax.tree_util.Partial``), so
that every solver and method runs on it unchanged, and nothing compiles anew when the rest changes. It differs from the
whole one by a constant, the ridge and the noise of the rest.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial
from jaxtyping import Array

from fmu_jax.objective import Objective, Params


class Part(NamedTuple):
    """A model seen from some of its parameters.

    Attributes:
      objective: The objective as a function of the part.
      params: The part, arrays by path.
      merge: ``merge(part) -> params``, the whole with the part in place.
    """

    objective: Objective
    params: dict[str, Array]
    merge: Callable[[dict[str, Array]], Any]


def restrict(objective: Objective, params: Params, only: str | Sequence[str]) -> Part:
    """The objective as a function of the parameters named by ``only``.

    Args:
      objective: Objective for a model that is not linear.
      params: All parameters.
      only: A name or several, see the module.

    Returns:
      The ``Part``.

    Raises:
      ValueError: The linear model, or a name that no path holds; the message lists the paths.

    >>> objective = Objective(l2=0.1, predict=lambda p, x: x @ p["first"]["w"] + p["last"]["b"])
    >>> part = restrict(objective, {"first": {"w": jax.numpy.ones(2)}, "last": {"b": jax.numpy.zeros(())}}, "last")
    >>> list(part.params)
    ['last/b']
    """
    if objective.predict is None:
        raise ValueError(
            f"`only`={only!r} names parameters of a model, but the linear model is one vector without names"
        )
    split = select(params, only)
    merge = Partial(_Merge(jax.tree.structure(params), tuple(names(params))), split[1])
    predict = objective.predict
    bound = predict if isinstance(predict, Partial) else Partial(predict)
    through = Partial(_Through(bound.func), bound.args, bound.keywords, merge)
    return Part(dataclasses.replace(objective, predict=through), split[0], merge)


def names(params: Params) -> list[str]:
    """Paths of all arrays, in the order of ``jax.tree.leaves``."""
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def select(params: Params, only: str | Sequence[str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Splits parameters into those that ``only`` names and the rest, arrays by path; errors as for ``restrict``."""
    wanted = (only,) if isinstance(only, str) else only
    if not isinstance(wanted, list | tuple) or not all(isinstance(name, str) for name in wanted):
        raise ValueError(f"`only` names parameters by texts such as 'Dense_1', in a list if several; got {only!r}")
    known = names(params)
    for name in wanted:
        if not any(_holds(path, name) for path in known):
            raise ValueError(f"`only` names {name!r}, which no parameter's path holds; known: {', '.join(known)}")
    if not wanted:
        raise ValueError(f"`only` is empty; name some of {', '.join(known)}, or pass None for all")
    inside = {path: any(_holds(path, name) for name in wanted) for path in known}
    leaves = dict(zip(known, jax.tree.leaves(params), strict=True))
    part = {path: leaf for path, leaf in leaves.items() if inside[path]}
    return part, {path: leaf for path, leaf in leaves.items() if not inside[path]}


def _holds(path: str, name: str) -> bool:
    return bool(name) and f"/{name}/" in f"/{path}/"


# Both are compared by value, so that a second call with the same model finds its compiled program.
@dataclasses.dataclass(frozen=True)
class _Merge:
    structure: Any
    paths: tuple[str, ...]

    def __call__(self, rest, part):
        leaves = rest | part
        return jax.tree.unflatten(self.structure, [leaves[path] for path in self.paths])


@dataclasses.dataclass(frozen=True)
class _Through:
    predict: Callable[..., Any]

    def __call__(self, args, keywords, merge, part, x):
        return self.predict(*args, merge(part), x, **keywords)
