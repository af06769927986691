"""Where arrays lie on the slice of devices that a thread works on (`mesh`): whole on each, or row by row over all.

Without a mesh nothing here does anything.
"""

from typing import Any, TypeVar

from scripts.harness.lazy import fmu_jax, jax
from scripts.harness.mesh import DATA, current

Tree = TypeVar("Tree")


def everywhere(tree: Tree) -> Tree:
    """Arrays on every device of this slice, each whole; also those that lie on another slice."""
    return tree if current() is None else jax.device_put(tree, jax.P())


def rows(tree: Tree) -> Tree:
    """Arrays whose first axis lies over the devices of this slice.

    Raises:
      ValueError: If it cannot be divided among them.
    """
    slice_ = current()
    if slice_ is None:
        return tree
    for leaf in jax.tree.leaves(tree):
        if leaf.shape[0] % slice_.size:
            raise ValueError(
                f"{leaf.shape[0]} rows cannot be divided among {slice_.size} devices; choose another number of them, "
                f"such as {leaf.shape[0] - leaf.shape[0] % slice_.size}, or another --mesh"
            )
    return jax.device_put(tree, jax.P(DATA))


def batches(rows: Any) -> Any:
    """As `rows`, of the second axis, ``(steps, batch)``, also inside ``jit``: each device then trains on its part.

    Raises:
      ValueError: If a batch cannot be divided among the devices.
    """
    slice_ = jax.sharding.get_abstract_mesh()
    if slice_.empty:
        return rows
    if rows.shape[1] % slice_.size:
        raise ValueError(f"--batch-size {rows.shape[1]} cannot be divided among {slice_.size} devices")
    return jax.device_put(rows, jax.P(None, DATA))


def table(tree: Tree) -> Tree:
    """As `rows`, with rows of zeros added as needed: of `fmu_jax.Data` they are rows that were removed."""
    slice_ = current()
    return (
        tree if slice_ is None else fmu_jax.sharding.place_rows(tree, jax.sharding.NamedSharding(slice_, jax.P(DATA)))
    )


def on_host(tree: Any) -> Any:
    """Whole arrays as NumPy arrays, in every process of the slice."""
    return jax.device_get(everywhere(tree))
