"""Checkpoints: a pytree of arrays on disk, written atomically, and refused by a run to which it does not belong.

A folder holds the newest two checkpoints, each named by its step. A checkpoint holds the arrays, written by orbax, and
``about.json``: a *fingerprint* (a flat row that identifies the run), the type and shape of every leaf, and SHA-256 of
the files and of itself. So a checkpoint of another configuration or architecture is refused by name, and damage is
detected before anything is read. Typed PRNG keys are stored as their data. Needs the extra ``checkpoints``::

    for step in ...:
        checkpoints.save(folder, state, step=step, fingerprint=fingerprint)
    ...
    if checkpoints.latest(folder) is not None:
        state = checkpoints.restore(folder, fresh_state, fingerprint=fingerprint)

A kill at any moment leaves the checkpoints that were there; what a killed writer left is removed by the next `save`.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from pags_jax.models.files import flush

KEEP = 2
"""How many checkpoints stay: were the newest damaged, there is the one before."""
_TEMPORARY = ".tmp-"

Tree = TypeVar("Tree")


class CheckpointError(ValueError):
    """A checkpoint is another run's, or damaged. The message names it and what differs."""


def save(folder: Path, state: Any, *, step: int, fingerprint: Mapping[str, Any]) -> Path:
    """Writes a checkpoint, then removes all others except the one before it (`KEEP`), also those of later steps.

    Args:
      folder: Folder of the run's checkpoints; made if it is missing.
      state: A pytree of arrays.
      step: Names the checkpoint.
      fingerprint: What the run is, in plain values by name; `restore` asks for the same.

    Raises:
      OSError: If the folder cannot be written to.

    >>> import tempfile
    >>> import numpy as np
    >>> state = {"w": np.arange(3.0)}
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = save(Path(name), state, step=7, fingerprint={"model": "lenet"})
    ...     latest(Path(name)), restore(Path(name), state, fingerprint={"model": "lenet"})
    (7, {'w': array([0., 1., 2.])})
    """
    folder = folder.absolute()
    path, writing = folder / str(step), folder / f"{_TEMPORARY}{step}"
    _remove(folder.glob(f"{_TEMPORARY}*"))
    with _checkpointer() as checkpointer:
        checkpointer.save(writing / "state", args=ocp.args.StandardSave(jax.device_get(_without_keys(state))))
    about = {"fingerprint": _plain(fingerprint), "leaves": _leaves(state), "sha256": _digest(writing / "state")}
    (writing / "about.json").write_text(json.dumps({"about": about, "sha256": _seal(about)}, indent=2), "utf-8")
    flush(writing / "about.json")
    if path.exists():
        path.rename(folder / f"{_TEMPORARY}replaced")
    writing.rename(path)
    flush(folder)
    newest = [other for other in _steps(folder) if other <= step][-KEEP:]
    _remove([*folder.glob(f"{_TEMPORARY}*"), *(folder / str(n) for n in _steps(folder) if n not in newest)])
    return path


def latest(folder: Path) -> int | None:
    """The step of the newest checkpoint, or None if there is none."""
    return max(_steps(folder), default=None)


def restore(folder: Path, like: Tree, *, fingerprint: Mapping[str, Any], step: int | None = None) -> Tree:
    """Reads a checkpoint.

    Args:
      folder: Folder of the run's checkpoints.
      like: A pytree of arrays of the shapes and types that are expected.
      fingerprint: As `save` was given.
      step: Step of the checkpoint; by default the newest.

    Raises:
      FileNotFoundError: If there is no such checkpoint.
      CheckpointError: If it was saved with another fingerprint or another tree of arrays (the message says what
        differs), or is damaged.
    """
    step = latest(folder) if step is None else step
    path = folder.absolute() / str(step)
    if step is None or not path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint {'' if step is None else f'{step} '}in {folder}")
    about = _about(path)
    for there, here in ((about["fingerprint"], _plain(fingerprint)), (about["leaves"], _leaves(like))):
        if differing := _differences(there, here):
            more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise CheckpointError(
                f"{path} was saved by another configuration or architecture ({'; '.join(differing[:3])}{more}); "
                "delete it to start afresh, or choose another folder"
            )
    abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _without_keys(like))
    with _checkpointer() as checkpointer:
        tree = checkpointer.restore(path / "state", args=ocp.args.StandardRestore(abstract))
    return jax.tree.map(_placed, tree, like)


def _steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints, in order; what a killed writer left has another kind of name."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _about(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / "about.json").read_text(encoding="utf-8"))
        about = content["about"]
        if content["sha256"] != _seal(about) or about["sha256"] != _digest(path / "state"):
            raise ValueError("the files are not those that were written")
        return {"fingerprint": dict(about["fingerprint"]), "leaves": dict(about["leaves"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged; delete it to go on from an earlier checkpoint or from the start"
        ) from error


def _plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from a file: a tuple as a list."""
    return json.loads(json.dumps(dict(fingerprint)))


def _seal(about: dict[str, Any]) -> str:
    """SHA-256 of what ``about.json`` says of the checkpoint."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\0".encode() + content)
    return digest.hexdigest()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _checkpointer() -> ocp.Checkpointer:
    """A checkpointer for this process alone: the others of a run neither write nor are waited for."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="alone"
    )
    return ocp.Checkpointer(ocp.StandardCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


def _placed(leaf: np.ndarray, like: Any) -> Any:
    """An array where ``like`` is: on the host, or on the same devices."""
    if not isinstance(like, jax.Array):
        return leaf
    if _is_key(like):
        data = _placed(leaf, jax.random.key_data(like))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
    return jax.make_array_from_callback(leaf.shape, like.sharding, lambda part: leaf[part])


def _leaves(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    was, now = ({name: json.dumps(value) for name, value in side.items()} for side in (there, here))
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return [f"{name}: {was.get(name, 'absent')} there, {now.get(name, 'absent')} here" for name in names]
