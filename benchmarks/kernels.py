"""What is compiled for other machines: kernels by name, each a function and the shapes that it is called with.

A kernel is the public function as users call it, checks and all, traced whole. Its arguments are shapes on devices:
nothing is computed, so that sizes are those of real use. ``Place`` says where an argument lies: row by row over the
chips, or whole on each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Place(NamedTuple):
    """Makes shapes on the devices of a mesh; without one, shapes alone."""

    mesh: jax.sharding.Mesh | None = None

    def rows(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        """An array whose first axis lies over the devices."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._on(jax.P("data")))

    def whole(self, tree: Any) -> Any:
        """Arrays that lie on every device, of the shapes of ``tree``; a tuple of whole numbers is one of float32."""
        if isinstance(tree, tuple) and all(isinstance(size, int) for size in tree):
            tree = jax.ShapeDtypeStruct(tree, jnp.float32)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._on(jax.P())), tree)

    def key(self) -> Any:
        """A PRNG key."""
        return self.whole(jax.eval_shape(lambda: jax.random.key(0)))

    def _on(self, spec: Any) -> Any:
        return None if self.mesh is None else jax.sharding.NamedSharding(self.mesh, spec)


class Kernel(NamedTuple):
    """A public function at a size.

    Attributes:
      name: Name of the function, and of the model or loss where there are several.
      size: Size in words.
      make: ``(place) -> (function, arguments)``.
    """

    name: str
    size: str
    make: Callable[[Place], tuple[Callable[..., Any], tuple[Any, ...]]]


def traced(kernel: Kernel, place: Place) -> Any:
    """The kernel, traced for the devices of ``place``; ``lower().compile()`` goes on."""
    function, arguments = kernel.make(place)
    return jax.jit(function).trace(*arguments)
