"""Devices: one, those of a machine, or those of many processes.

A layout such as ``data=4,sweep=2`` makes slices of devices: two slices of four. A slice does one unit of work at a
time; within it rows (of a table, of a batch) lie on all of its devices, and everything else on each. Computation
follows the data under ``jit``, so that nothing but this module and `placement` knows of devices::

    with mesh.session("data=4,sweep=2"):
        for unit in mesh.each(units, work):     # work(unit) runs on a slice, two units side by side
            ...

    def work(unit):
        data = placement.rows(data)             # an array's first axis over the devices of this slice

Without a layout nothing here does anything: one device, one unit after the other.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from scripts.harness.lazy import fmu_jax, jax, multihost_utils

DATA = "data"
HEARTBEAT_S = 30
"""After so long without a word a process counts as dead, and the others stop."""
Item = TypeVar("Item")


class Layout(NamedTuple):
    """How many devices there are in a slice (``data``), and how many slices (``sweep``)."""

    data: int = 1
    sweep: int = 1


def parse(text: str) -> Layout:
    """Read a layout.

    Raises:
      ValueError: If it is none; the message shows one.

    >>> parse("data=4,sweep=2")
    Layout(data=4, sweep=2)
    """
    sizes = dict(re.findall(r"(data|sweep)=([1-9][0-9]{0,5})", text))
    if not sizes or text != ",".join(f"{name}={size}" for name, size in sizes.items()):
        raise ValueError(f"--mesh: expected axes and numbers of devices such as data=4,sweep=2, got {text!r}")
    return Layout(**{name: int(size) for name, size in sizes.items()})


def start(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Join this process to the others of its run; before anything else that JAX does.

    Raises:
      ValueError: If one of the three is missing, or "auto" finds nothing.
      ConnectionError: If the processes do not find each other.
    """
    auto = coordinator == "auto"
    if not auto and (processes is None or process is None or not 0 <= process < processes):
        raise ValueError(
            f"--coordinator {coordinator} needs --processes, how many there are, and --process, which one this is "
            f"(0 to processes - 1); got {processes} and {process}"
        )
    address, count, own = (None, None, None) if auto else (coordinator, processes, process)
    try:
        jax.distributed.initialize(address, count, own, heartbeat_timeout_seconds=HEARTBEAT_S)
    except ValueError as error:
        raise ValueError(f"--coordinator auto: no cluster was found here ({error}); give HOST:PORT") from error
    except RuntimeError as error:
        raise ConnectionError(f"--coordinator {coordinator}: the processes did not meet ({error})") from error


def several_processes() -> bool:
    """Whether this process is one of several that `start` joined."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


class _Session(NamedTuple):
    """The slices of all processes, and the numbers of those that this process has devices in."""

    slices: Sequence[jax.sharding.Mesh]
    own: tuple[int, ...]


_session: _Session | None = None


@contextlib.contextmanager
def session(layout: str = "") -> Iterator[None]:
    """Use the devices in a layout for as long as the context lasts, in every thread of `each`.

    Raises:
      ValueError: If there are fewer devices, or a slice would hold parts of several processes.
      ConnectionError: If another process has stopped.
    """
    global _session
    if not layout and not several_processes():
        yield
        return
    try:
        _session = made = _slices(parse(layout) if layout else Layout(data=jax.device_count()))
        with jax.set_mesh(made.slices[made.own[0]]):
            yield
    except jax.errors.JaxRuntimeError as error:
        if not several_processes():
            raise
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"another process of this run has stopped ({reason}); start all of them again") from error
    finally:
        _session = None


def _slices(layout: Layout) -> _Session:
    asked, devices = f"--mesh data={layout.data},sweep={layout.sweep}", jax.devices()
    try:
        slices = fmu_jax.sharding.slices(devices, size=layout.data, count=layout.sweep, axis=DATA)
    except ValueError as error:
        raise ValueError(f"{asked}: {error}") from None
    own = tuple(index for index, slice_ in enumerate(slices) if slice_.local_devices)
    if not own:
        used = f"{layout.data * layout.sweep} of {len(devices)} devices, none of process {jax.process_index()}"
        raise ValueError(f"{asked} uses {used}")
    return _Session(slices, own)


def each(items: Sequence[Item], work: Callable[[Item], Any]) -> Iterator[Item]:
    """Do all items, as many at once as there are slices; yields an item when it is done.

    Several processes deal the items among them, and each yields its own.

    Raises:
      Exception: The first that ``work`` raised; what has begun is finished, and nothing else begun.
    """
    if _session is None or len(_session.slices) == 1:
        for item in items:
            work(item)
            yield item
        return
    mine = [item for number, item in enumerate(items) if number % len(_session.slices) in _session.own]
    yield from fmu_jax.sharding.each(mine, work, [_session.slices[index] for index in _session.own])


def current() -> jax.sharding.Mesh | None:
    """The slice that this thread works on, or None."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def leads() -> bool:
    """Whether this process is the one of its slice that writes files."""
    slice_ = current()
    return slice_ is None or min(device.process_index for device in slice_.devices.flat) == jax.process_index()


def agreed(values: Any) -> np.ndarray:
    """What process 0 has, in every process."""
    values = np.asarray(values)
    return np.asarray(multihost_utils.broadcast_one_to_all(values)) if several_processes() else values


def wait(what: str) -> None:
    """Go on when all processes are here."""
    if several_processes():
        multihost_utils.sync_global_devices(what)


def leave(status: int) -> int:
    """The status; after an error it ends this process at once if the others would be waited for."""
    if status and several_processes():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
