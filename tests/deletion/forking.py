"""Runs requests in processes that can be killed, one fork an order, with a stand-in for the model.

Everything is imported here once, and nothing in a fork computes with JAX, so that a request takes milliseconds: what is
tested is that ledger and files are whole whenever a process ends. Orders come as JSON, one a line, on standard input;
the answers go to standard output.
"""

import contextlib
import ctypes
import io
import itertools
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fmu_jax.deletion import __main__ as entry
from fmu_jax.deletion import command, exports, files, ledger, model, page, records, requests, seal, training

PLACES = {
    "ledger": ledger,
    "seal": seal,
    "exports": exports,
    "files": files,
    "training": training,
    "os": os,
    "Path": Path,
}


def stand_in(counts: int, deleted: int) -> None:
    """Puts a model that only counts in the place of the real one: what it publishes is how many were deleted."""

    def unpack(_: Any, packed: bytes) -> SimpleNamespace:
        with np.load(io.BytesIO(packed), allow_pickle=False) as content:
            leaves = [content[f"arr_{k}"] for k in range(len(content.files))]
        return SimpleNamespace(leaves=leaves, counts=leaves[counts])

    def pack(state: SimpleNamespace) -> bytes:
        content = io.BytesIO()
        np.savez(content, *state.leaves)
        return content.getvalue()

    def without(settings: Any, before: SimpleNamespace, trained: np.ndarray, *_: Any) -> requests.Model:
        leaves = [np.array(leaf) for leaf in before.leaves]
        np.subtract.at(leaves[counts], (trained[:, -1].astype(int), trained[:, -2].astype(int)), 1)
        leaves[deleted] = leaves[deleted] + np.int32(len(trained))
        params = np.full(len(settings.feature_names), float(leaves[deleted]))
        return requests.Model(SimpleNamespace(leaves=leaves, counts=leaves[counts]), requests.UNLEARNED, 0.0, params)

    def promise(_: Any, number: int, fresh: bool) -> dict[str, Any]:
        release = {"epsilon": 0.1, "mu": 0.1, "delta": 0.1} if fresh else None
        series = {"released": number, "epsilon": 0.1, "mu": 0.1, "planned_mu": 1.0}
        return {"release": release, "series": series | {"planned_left": 1, "planned_releases": 1}, "statement": []}

    model.unpack, model.pack, requests._without = unpack, pack, without
    requests.guarantee.admitted = lambda *_: 1.0
    records.promise = promise
    model.as_data = lambda rows, _: SimpleNamespace(weight=rows[:, -3])
    model.assess = lambda *_: {"accuracy": 0.5, "equalized_odds_mean": 0.5}


def kill_at(place: str, name: str, call: int, *, after: bool) -> None:
    """Kills this process by SIGKILL at the given call of a function: before it does anything, or after."""
    real, calls = getattr(PLACES[place], name), [0]

    def counted(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(PLACES[place], name, counted)


def announce(write: int) -> None:
    """Makes a request say "(" once its transaction is open, and ")" once it is committed."""
    begin, settle, begun = requests._serve, ledger.settle, []

    def marked_begin(*args: Any) -> Any:
        os.write(write, b"(")
        begun.append(True)
        return begin(*args)

    def marked_settle(db: Any) -> None:
        if begun:
            begun.clear()
            os.write(write, b")")
        settle(db)

    requests._serve, ledger.settle = marked_begin, marked_settle


def serve(store: str, batches: list[list[str]], write: int, point: list[Any] | None = None) -> None:
    """Deletes batch after batch, and says "(", ")" and "." as each is begun, committed and answered."""
    announce(write)
    for number, batch in enumerate(batches):
        if point and number == 1:
            kill_at(*point[:3], after=point[3])
        requests.delete(Path(store), batch)
        os.write(write, b".")


def killed(
    store: str, batches: list[list[str]], *, marks: int = 0, delay: float = 0, point: list[Any] | None = None
) -> dict:
    """Kills a process that serves requests: at a point, or after so many of its marks and a delay; what it had said."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        serve(store, batches, write, point)
        os._exit(0)
    os.close(write)
    said = b""
    if not point:
        while len(said) < marks and (mark := os.read(read, 1)):
            said += mark
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    while more := os.read(read, 4096):
        said += more
    os.close(read)
    return {"said": said.decode(), "signal": os.WTERMSIG(os.waitpid(child, 0)[1])}


def timed(store: str, batches: list[list[str]]) -> list[float]:
    """How long a process takes to each of its marks: from its start to the first, and from each to the next."""
    read, write = os.pipe()
    times = [time.monotonic()]
    child = os.fork()
    if not child:
        os.close(read)
        serve(store, batches, write)
        os._exit(0)
    os.close(write)
    while os.read(read, 1):
        times.append(time.monotonic())
    os.close(read)
    os.waitpid(child, 0)
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def together(commands: list[list[str]]) -> list[dict]:
    """Runs several commands at the same time, each in a process of its own."""
    children = [_start(words) for words in commands]
    return [_finish(*child) for child in children]


def command_of(words: list[str], **how: Any) -> dict:
    """Runs one command; ``how`` as in ``_start``."""
    return _finish(*_start(words, **how))


def built(store: str, template: str, point: list[Any]) -> int:
    """Kills a process that builds a store of another one's files, as training does; the signal that ended it."""
    child = os.fork()
    if not child:
        kill_at(*point[:3], after=point[3])
        with ledger.opened(Path(template)) as old:
            meta, people, record = ledger.all_meta(old), list(ledger.all_people(old)), ledger.last_record(old)
            rows = ledger.rows_between(old, 0, len(people))
        with exports.building(Path(store)) as place:
            training._fill(place, meta, [(name, position) for name, position, _ in people], rows, record)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def obey_permissions() -> None:
    """Gives up root's capabilities, so that a folder that may not be written to is not written to."""
    if os.geteuid() == 0:
        version, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None).capset(version, none):
            raise OSError("capset failed")


def _start(words: list[str], *, limit: int | None = None, obey: bool = False, point: list[Any] | None = None):
    """Starts a command in a fork: with a limit on the size of files, without root's rights, or to be killed."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    os.close(read)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if obey:
        obey_permissions()
    if point:
        kill_at(*point[:3], after=point[3])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = command.main(words)
        except BaseException as error:
            status = repr(error)
    os.write(write, json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue()}).encode())
    os._exit(0)


def _finish(child: int, read: int) -> dict:
    content = b""
    while more := os.read(read, 65536):
        content += more
    os.close(read)
    ended = os.WTERMSIG(os.waitpid(child, 0)[1])
    return {"signal": ended, **(json.loads(content) if content else {})}


ORDERS = {"killed": killed, "timed": timed, "together": together, "command": command_of, "built": built}


if __name__ == "__main__":
    WARM = (entry, page)  # Imported once, for all forks.
    stand_in(*map(int, sys.argv[1:]))
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(ORDERS[order.pop("do")](**order)), flush=True)
