"""Where arrays lie on the slice of devices that a thread works on (`mesh`): whole on each, or row by row over all.

Without a mesh nothing here does anything.
"""

import json
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from scripts.harness.mesh import DATA, current, several_processes

PIECES = 960
"""Many rows are padded to a multiple, so that sums over them add up devices and not rows (`fmu_jax.rounding`)."""

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
    if slice_ is None:
        return tree
    return rows(jax.tree.map(lambda leaf: _padded(leaf, _padding(leaf.shape[0], slice_.size)), tree))


def table_of_processes(tree: Tree) -> Tree:
    """As `table`, of rows that lie in several processes: each gives its own, as NumPy arrays, and none sees all.

    The rows of process 0 come first. All processes must call this, with the same columns and types.
    """
    slice_ = current()
    if slice_ is None or not several_processes():
        return table(tree)
    processes = len({device.process_index for device in slice_.devices.flat})
    here = len(jax.tree.leaves(tree)[0])
    most = int(np.max(multihost_utils.process_allgather(np.int64(here))))
    share = most + _padding(processes * most, slice_.size * processes) // processes
    sharding = jax.sharding.NamedSharding(slice_, jax.P(DATA))
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, _padded(np.asarray(leaf), share - here)), tree
    )


def first_row(tree: Any) -> int:
    """Where the rows that this process gave `table_of_processes` begin: its row ``i`` is row ``first_row(data) + i``.

    What is done to rows, such as a removal, is to be the same in all processes: `gather` joins what each has to say.
    """
    slice_ = current()
    if slice_ is None or not several_processes():
        return 0
    order = list(dict.fromkeys(device.process_index for device in slice_.devices.flat))
    return order.index(jax.process_index()) * (len(jax.tree.leaves(tree)[0]) // len(order))


def gather(values: Any) -> list[Any]:
    """What each process passes, in the order of the processes: lists, text, numbers. `fmu_jax.datasets.from_csv` asks.

    Raises:
        TypeError: If ``values`` cannot be written as JSON.
    """
    if not several_processes():
        return [values]
    mine = np.frombuffer(json.dumps(values).encode(), np.uint8)
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(len(mine))))
    texts = multihost_utils.process_allgather(np.pad(mine, (0, int(lengths.max()) - len(mine))))
    return [json.loads(bytes(text[:length])) for text, length in zip(np.asarray(texts), lengths, strict=True)]


def on_host(tree: Any) -> Any:
    """Whole arrays as NumPy arrays, in every process of the slice."""
    return jax.device_get(everywhere(tree))


def _padding(count: int, devices: int) -> int:
    """Rows to add so that ``devices`` divide them, in equal pieces where there are many."""
    pieces = math.lcm(PIECES, devices)
    return -count % (pieces if count >= 32 * pieces else devices)


def _padded(leaf: Any, extra: int) -> Any:
    if not extra:
        return leaf
    library = np if isinstance(leaf, np.ndarray) else jnp
    return library.pad(leaf, [(0, extra), *[(0, 0)] * (leaf.ndim - 1)])
