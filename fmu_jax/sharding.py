"""Rows over devices: pads them, places them on a sharding, joins those of several processes; runs work side by side.

A sharding says over which devices an array's first axis lies, such as

    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("rows"))

Everything in this package computes where its rows are. ``fit``, ``remove``, ``certify``, ``stream`` and the metrics
take ``place_rows(data, sharding)`` in place of ``data``.
"""

import collections
import concurrent.futures
import json
import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from fmu_jax.row_blocks import PIECES, TILE

Tree = TypeVar("Tree")
Item = TypeVar("Item")


def pad_rows(tree: Tree, count: int) -> Tree:
    """Adds rows of zeros until ``count`` devices divide them: in a ``Data`` these are rows of weight zero.

    Many rows are filled up to a multiple of 960 as well, so that sums over them add up devices and not rows; millions
    of them to a multiple of 960 times 128, so that TPUs work on them in blocks without a copy of all.

    Args:
      tree: Arrays whose first axis are the rows, all as long.
      count: Number of devices, at least 1.

    Returns:
      The same arrays with at most ``count`` rows more, or at most 3 % more.

    Raises:
      ValueError: ``count`` is below 1.

    >>> pad_rows({"x": np.ones((3, 2)), "weight": np.ones(3)}, 4)["weight"].tolist()
    [1.0, 1.0, 1.0, 0.0]
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, the number of devices, got {count}")
    return jax.tree.map(lambda leaf: _padded(leaf, _padding(leaf.shape[0], count)), tree)


def place_rows(tree: Tree, sharding: Sharding) -> Tree:
    """Places rows on the devices of a sharding, filled up as ``pad_rows`` does.

    Args:
      tree: Arrays whose first axis are the rows, such as a ``Data``.
      sharding: Sharding of the first axis.

    Returns:
      The same arrays, on these devices.

    >>> from fmu_jax import datasets
    >>> mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> data = place_rows(datasets.synthetic(100, 3, seed=0).train, jax.sharding.NamedSharding(mesh, jax.P("rows")))
    >>> len(data.x.addressable_shards)
    1
    """
    return jax.device_put(pad_rows(tree, _pieces(sharding)), sharding)


def place_process_rows(tree: Tree, sharding: Sharding) -> Tree:
    """As ``place_rows``, of rows that lie in several processes: each gives its own, and none sees all.

    Args:
      tree: This process's rows, NumPy arrays. All processes must call this, with the same columns and types.
      sharding: Sharding of the first axis, over the devices of all processes, as many of each.

    Returns:
      Arrays over all devices. The rows come in the order of the processes; row ``i`` of this process is row
      ``first_row(data) + i``.
    """
    processes = jax.process_count()
    if processes == 1:
        return place_rows(tree, sharding)
    here = len(jax.tree.leaves(tree)[0])
    most = int(np.max(multihost_utils.process_allgather(np.int64(here))))
    share = most + _padding(processes * most, _pieces(sharding) * processes) // processes
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, _padded(np.asarray(leaf), share - here)), tree
    )


def first_row(tree: Any) -> int:
    """Where the rows that this process gave ``place_process_rows`` begin.

    An operation on rows, such as a removal, must be the same in all processes; ``gather`` joins what each contributes.

    Args:
      tree: What ``place_process_rows`` returned.
    """
    leaf = jax.tree.leaves(tree)[0]
    places = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
    return min(place[0].start or 0 for place in places)


def gather(values: Any) -> list[Any]:
    """What each process passes, in the order of the processes; ``datasets.from_csv`` takes it as its ``gather``.

    Args:
      values: Lists, text, numbers, truth values.

    Raises:
      TypeError: ``values`` cannot be written as JSON.

    >>> gather([3, 14])
    [[3, 14]]
    """
    text = json.dumps(values)
    if jax.process_count() == 1:
        return [values]
    mine = np.frombuffer(text.encode(), np.uint8)
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(len(mine))))
    texts = multihost_utils.process_allgather(np.pad(mine, (0, int(lengths.max()) - len(mine))))
    return [json.loads(bytes(text[:length])) for text, length in zip(np.asarray(texts), lengths, strict=True)]


def on_host(tree: Any) -> Any:
    """Whole arrays as NumPy arrays, in every process; all processes must call it."""

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def slices(devices: Sequence[Any], *, size: int, count: int, axis: str = "rows") -> list[jax.sharding.Mesh]:
    """Divides devices into meshes, such as those of ``each``; a mesh has one axis, for rows.

    Args:
      devices: Devices, of which the first ``size * count`` are used.
      size: Number of devices in a mesh.
      count: Number of meshes.
      axis: Name of the axis.

    Raises:
      ValueError: There are fewer devices; one of several meshes would hold devices of several processes; or the
        processes of the only mesh would have unequal numbers of devices in it.

    >>> [mesh.size for mesh in slices(jax.devices(), size=1, count=1)]
    [1]
    """
    needed = size * count
    if needed > len(devices):
        raise ValueError(
            f"needs {needed} devices; there are {len(devices)} "
            f"({devices[0].device_kind}). To try it on a CPU, set XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    axes = (jax.sharding.AxisType.Auto,) * 2
    whole = jax.make_mesh((count, size), ("meshes", axis), axis_types=axes, devices=devices[:needed])
    for row in whole.devices:
        held = collections.Counter(device.process_index for device in row)
        if count > 1 and len(held) > 1:
            own = collections.Counter(device.process_index for device in devices)
            raise ValueError(
                f"a slice of {size} devices would be of several processes, which only a slice of all devices may be; "
                f"divide the devices of a process (by its number: {dict(own)})"
            )
        if len(set(held.values())) > 1:
            raise ValueError(
                "the processes of a slice must have as many devices each; by the number of the process they have "
                f"{dict(held)}"
            )
    return [jax.sharding.Mesh(row, (axis,), axis_types=axes[:1]) for row in whole.devices]


def each(items: Sequence[Item], work: Callable[[Item], Any], meshes: Sequence[jax.sharding.Mesh]) -> Iterator[Item]:
    """Does independent work on several meshes side by side, such as the fits of a sweep; one item at a time on each.

    Args:
      items: What is to do.
      work: Called with an item, in a thread of its own, where its mesh is the one that ``jax.set_mesh`` sets.
      meshes: Meshes of disjoint devices of this process.

    Yields:
      Each item, when it is done.

    Raises:
      Exception: The first that ``work`` raised; what has begun is finished, and nothing else begun.

    >>> mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> sorted(each([1.0, 2.0], lambda item: jnp.sqrt(item).block_until_ready(), [mesh]))
    [1.0, 2.0]
    """
    free: queue.SimpleQueue[jax.sharding.Mesh] = queue.SimpleQueue()
    for mesh in meshes:
        free.put(mesh)
    stop = threading.Event()

    def do(item: Item) -> bool:
        if stop.is_set():
            return False
        mesh = free.get()
        try:
            with jax.set_mesh(mesh):
                work(item)
            return True
        except BaseException:
            stop.set()
            raise
        finally:
            free.put(mesh)

    with concurrent.futures.ThreadPoolExecutor(len(meshes)) as pool:
        items_of = {pool.submit(do, item): item for item in items}
        try:
            for done in concurrent.futures.as_completed(items_of):
                if done.result():
                    yield items_of[done]
        finally:
            stop.set()


def _pieces(sharding: Sharding) -> int:
    """Into how many pieces a sharding cuts the first axis."""
    devices = len(sharding.device_set)
    return devices // sharding.shard_shape((devices,))[0]


def _padding(count: int, devices: int) -> int:
    """Rows to add so that ``devices`` divide them, in equal pieces if they are many, of whole tiles if very many."""
    pieces = math.lcm(PIECES, devices)
    units = (unit for unit in (pieces * TILE, pieces) if count >= 32 * unit)
    return -count % next(units, devices)


def _padded(leaf: Any, extra: int) -> Any:
    if not extra:
        return leaf
    library = np if isinstance(leaf, np.ndarray) else jnp
    return library.pad(leaf, [(0, extra), *[(0, 0)] * (leaf.ndim - 1)])
