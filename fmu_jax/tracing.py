"""What is traced, what can be looked at, and what has a derivative: the one place that decides.

A check looks at values, and a traced one has none. What is concrete may be looked at even while something else is
traced (data that a jitted function closes over): ``when_concrete`` and ``eager_only`` compute such checks at once.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

Tree = TypeVar("Tree")
#: The tangent of a scalar that is whole or a truth value: there is none.
NO_TANGENT: Any = np.zeros((), jax.dtypes.float0)


def is_traced(*trees) -> bool:
    """Whether any leaf is being traced (inside ``jit``, ``vmap`` or ``grad``), so that no value can be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


#: Entries up to which NumPy has looked at an array before a program for its shape is found, let alone compiled.
_FEW_ENTRIES = 2**14


def lies_here(*trees) -> bool:
    """Whether every leaf is concrete, small, and in this machine's memory, so that NumPy may look at it for nothing."""

    def here(leaf):
        if isinstance(leaf, jax.core.Tracer) or np.size(leaf) > _FEW_ENTRIES:
            return False
        if not isinstance(leaf, jax.Array):
            return True
        return leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.devices())

    return all(here(leaf) for leaf in jax.tree.leaves(trees))


def at_once(function: Callable[..., Any], *args, **kwargs):
    """Calls a function; of concrete arguments what it returns is concrete, whatever is traced around it."""
    if is_traced(args, kwargs):
        return function(*args, **kwargs)
    with jax.ensure_compile_time_eval():
        return function(*args, **kwargs)


def as_arrays(tree: Any) -> Any:
    """The tree with NumPy arrays and numbers as JAX arrays; what is concrete stays concrete."""
    return jax.tree.map(lambda leaf: at_once(_as_array, leaf), tree)


def _as_array(leaf):
    if isinstance(leaf, np.ndarray) and leaf.dtype == jnp.result_type(leaf):
        # JAX compiles a program for each shape that it is not told the dtype of. Told, it may keep the caller's memory.
        return jnp.asarray(leaf.copy(), leaf.dtype)
    return jnp.asarray(leaf)


def when_concrete(check: Callable[..., Any]) -> Callable[..., None]:
    """Makes a check do nothing if an argument is traced, and else run at once.

    >>> @when_concrete
    ... def check(x):
    ...     if jnp.any(x < 0):
    ...         raise ValueError("negative")
    >>> data = jnp.array([1.0, -1.0])
    >>> float(jax.jit(lambda x: (check(x), x.sum())[1])(data))
    0.0
    >>> jax.jit(lambda a: (check(data), a)[1])(1.0)
    Traceback (most recent call last):
    ValueError: negative...
    """

    @functools.wraps(check)
    def checked(*args, **kwargs):
        if not is_traced(args, kwargs):
            at_once(check, *args, **kwargs)

    return checked


def eager_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function that must see its values say so when one is traced."""

    @functools.wraps(function)
    def eager(*args, **kwargs):
        if is_traced(args, kwargs):
            raise TypeError(
                f"`{function.__name__}` must see its values, and one is traced; call it outside of jit, vmap and grad, "
                "and pass in what it returns"
            )
        return at_once(function, *args, **kwargs)

    return eager


def hoisted(function: Callable[..., Any], *example) -> tuple[Callable[..., Any], list]:
    """``pure(consts, *args)``, and the ``consts`` that ``function`` closes over and that a rule may differentiate."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*example)

    def pure(consts, *args):
        return jax.tree.unflatten(
            jax.tree.structure(shape), jax.core.eval_jaxpr(closed.jaxpr, consts, *jax.tree.leaves(args))
        )

    return pure, closed.consts


def nan_unless(fine, tangents: Tree) -> Tree:
    """Tangents that are NaN unless ``fine``, in either mode: a product, as a selection would transpose to zero."""
    return jax.tree.map(lambda leaf: leaf * jnp.where(fine, 1, jnp.nan).astype(leaf.dtype), tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def without_derivative(why: str, tree: Any) -> Any:
    """The tree as it is; whoever differentiates it is told why that cannot be done, by a TypeError."""
    del why
    return tree


@without_derivative.defjvp
def _(why, primals, tangents):
    del primals, tangents
    raise TypeError(why)
