"""The tensors of one model by name, out of what a checkpoint file holds beside them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pags_jax.models.records import Global, Record, described, printable
from pags_jax.models.tensors import Tensor

#: Entries in which a model is looked for, in this order: averaged weights before those that training ends with. Without
#: any of them it is the only entry that holds tensors alone, or one of them.
ENTRIES = (
    *("ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema_model_state_dict", "model_ema_state_dict"),
    *(
        "ema_model",
        "ema_net",
        "net_ema",
        "params_ema",
        "wa_model",
        "swa_model",
        "swa_state_dict",
        "swa_model_state_dict",
    ),
    *("model_state_dict", "state_dict", "model", "net", "network", "params", "last", "best"),
)
_COUNTERS = ("num_batches_tracked", "n_averaged")
_PERSISTENT = Global("torch_utils.persistence", "_reconstruct_persistent_obj")
_DEPTH = 50
_NAME = 500
_MEMBERS = 200_000
_TENSORS = 10_000
_SHARED = 4  # MadryLab's files name every tensor twice.

#: Mean and standard deviation of the images' channels, as publishers name them; the last clamps to [0, 1] before.
NORMALISERS = (
    *(("mean", "std"), ("mu", "sigma"), ("normalize.mean", "normalize.std"), ("normalizer.mean", "normalizer.std")),
    ("0.mean", "0.std"),  # In a sequence of both, in which the network is number 1.
    ("normalizer.new_mean", "normalizer.new_std"),
)


class State(NamedTuple):
    """A model's tensors, and what the file says of it.

    Attributes:
      arrays: by name, without what all names begin with.
      entry: the entries of the file that led to them.
      classes: names of the classes of a network and of what surrounds it, where the file has whole modules.
      settings: attributes of what surrounds the network, such as ``sigma_data``.
      recorded: arguments that the network was made with.
    """

    arrays: dict[str, np.ndarray]
    entry: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed
    recorded: dict[str, Any] = {}  # noqa: RUF012


def find_state(value: Any, *, source: str, entry: str | None = None) -> State:
    """Finds a model in what ``torch_files.load_file`` returned.

    Args:
      value: that.
      source: what to call it in messages.
      entry: the entry to take, where there are several; by default the first of ``ENTRIES``.

    Returns:
      The state.

    Raises:
      ValueError: there is no model, or not that entry.
    """
    path: tuple[str, ...] = ()
    seen: dict[int, bool] = {}
    value = _as_dict(value)
    if entry is not None:
        if not isinstance(value, dict) or entry not in value:
            raise ValueError(f"{source} has no entry {entry!r}; it has {_listed(value)}")
        value, path = value[entry], (entry,)
    for _ in range(_DEPTH):
        value = _as_dict(value)
        if isinstance(value, Record):
            return _of_module(value, path, source)
        if not isinstance(value, dict):
            break
        if _are_tensors(value):
            tensors = {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
            return State(_without_prefixes(_arrays(tensors, source), source), path)
        name = next((name for name in ENTRIES if _has_tensors(value.get(name), seen)), None)
        if name is None:
            items = {id(item): item for item in value.values()}  # Each once, however often it is named.
            models = {number for number, item in items.items() if _is_model(_as_dict(item))}
            alone = [name for name, item in value.items() if id(item) in models]
            inside = [name for name in ENTRIES if isinstance(value.get(name), dict)]  # For the message.
            if len(alone) != 1 and not inside:
                break
            name = alone[0] if len(alone) == 1 else inside[0]
        value, path = value[name], (*path, name)
    if (other := _other_than_tensors(value)) is not None:
        raise ValueError(f"{source}: {described(other)}, among tensors by name, is {described(value[other])}, no dense "
                         "tensor: leave it out, or save it as one, and the file again")  # fmt: skip
    where = " in ".join(f"'{described(name)}'" for name in path[:-4:-1]) or "it"
    raise ValueError(f"{source} holds no model that is known: {where} is {_listed(value)}; expected tensors by name, "
                     "or an entry that holds them, whose name can be passed as entry=")  # fmt: skip


def _listed(value: Any) -> str:
    if not isinstance(value, dict):
        return described(value)
    named = [f"{described(k)} ({described(v)})" if isinstance(v, Record) else described(k) for k, v in value.items()][
        :8
    ]
    return f"a dict of {', '.join(named) or 'nothing'}"


def _as_dict(value: Any) -> Any:
    """What a file sets by key in an object of a class of its own, such as a subclass of ``OrderedDict``, as a dict."""
    return value.entries if isinstance(value, Record) and value.entries else value


def _has_tensors(value: Any, known: dict[int, bool]) -> bool:
    """Whether it is an object, or has a tensor or a module anywhere in it: settings of averages have none."""
    if id(value) not in known:
        known[id(value)] = isinstance(value, Record) or any(
            isinstance(item, Tensor) or (isinstance(item, Record) and _is_model(item)) for item in _inside(value)
        )
    return known[id(value)]


def _inside(value: Any) -> Iterator[Any]:
    """A value, and what is in dicts of dicts, each of which is looked into once."""
    todo, seen = [value], set()
    while todo:
        item = todo.pop()
        yield item
        item = _as_dict(item)
        if isinstance(item, dict) and id(item) not in seen:
            seen.add(id(item))
            todo.extend(item.values())


def _is_model(value: Any) -> bool:
    """Whether it is a module, or a dict of tensors alone, or has an entry that is looked into."""
    if isinstance(value, Record):
        return value.what == _PERSISTENT or (isinstance(value.state, dict) and "_modules" in value.state)
    return isinstance(value, dict) and (
        _are_tensors(value) or any(isinstance(value.get(name), dict | Record) for name in ENTRIES)
    )


def _are_tensors(value: dict[Any, Any]) -> bool:
    """Whether it holds tensors by name alone, but for settings of modules, such as ``_extra_state``."""
    return bool(value) and all(_is_tensor(name, item) for name, item in value.items())


def _is_tensor(name: Any, item: Any) -> bool:
    return isinstance(name, str) and (isinstance(item, Tensor) or name.endswith("_extra_state"))


def _other_than_tensors(value: Any) -> Any:
    """The first name of what is no tensor, in a dict that holds tensors more than anything else."""
    items = value.items() if isinstance(value, dict) else ()
    others = [name for name, item in items if not _is_tensor(name, item)]
    return others[0] if others and len(others) < len(items) / 2 else None


# -------------------------------------------------------------------------------------------- whole modules
def _parts(module: Any, source: str) -> tuple[str, dict[str, Any]]:
    """The class and the attributes of a module, written by EDM's way of pickling or by PyTorch's."""
    if isinstance(module, Record) and module.what == _PERSISTENT:
        meta = module.args[0] if module.args else None
        if isinstance(meta, dict) and isinstance(meta.get("class_name"), str) and isinstance(meta.get("state"), dict):
            return meta["class_name"], meta["state"]
    elif isinstance(module, Record) and isinstance(module.state, dict) and "_modules" in module.state:
        what = module.args[0] if module.args and isinstance(module.args[0], Global) else module.what
        return (what.name if isinstance(what, Global) else described(what)), module.state
    raise ValueError(
        f"{source} holds {described(module)} where a module should be: nothing of it is called; of a file of several "
        "entries, pass that of the weights as entry="
    )


def _of_module(module: Record, path: tuple[str, ...], source: str) -> State:
    tensors: dict[str, Tensor] = {}
    for name, tensor in _tensors(module, "", source, (), iter(range(_MEMBERS))):
        if name in tensors:
            raise ValueError(f"{source} has two tensors of the name {printable(name)}")
        tensors[name] = tensor
    kind, settings = _parts(module, source)
    classes, network = (kind,), settings
    inner = settings.get("_modules", {}).get("model")
    if inner is not None:
        name, network = _parts(inner, source)
        classes = (name, kind)
    recorded = network.get("_init_kwargs")
    plain = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
    recorded = recorded if isinstance(recorded, dict) else {}
    recorded = {name: _plain(value) for name, value in recorded.items() if isinstance(name, str)}
    return State(_without_prefixes(_arrays(tensors, source), source), path, classes, plain, recorded)


def _arrays(tensors: dict[str, Tensor], source: str) -> dict[str, np.ndarray]:
    """Tensors as arrays, which share storages, if at all, as little as those of a model do."""
    if len(tensors) > _TENSORS:
        raise ValueError(f"{source} has a model of {len(tensors)} tensors, expected at most {_TENSORS}")
    arrays = {name: tensor.array() for name, tensor in tensors.items()}
    storages = {id(tensor.storage.data): tensor.storage for tensor in tensors.values()}
    held = sum(storage.count * storage.dtype.itemsize for storage in storages.values())
    if (taken := sum(array.nbytes for array in arrays.values())) > _SHARED * held:
        raise ValueError(
            f"{source} is refused: its tensors take {taken} bytes and share {held}, no model's share so much"
        )
    return arrays


def _plain(value: Any) -> Any:
    """Plain values and tuples of them as they are; of all others, which comparing could take long, a description."""
    if isinstance(value, list | tuple) and len(value) <= _DEPTH:
        return tuple(item if isinstance(item, int | float | str | None) else described(item) for item in value)
    return value if isinstance(value, int | float | str | None) else described(value)


def _tensors(
    module: Any, name: str, source: str, above: tuple[int, ...], left: Iterator[int]
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a module and of those within it; ``left`` ends where there are too many."""
    if id(module) in above or len(above) > _DEPTH:
        raise ValueError(f"{source} has modules within themselves or more than {_DEPTH} deep")
    _, state = _parts(module, source)
    for kind in ("_parameters", "_buffers", "_modules"):
        children = state.get(kind, {})
        if not isinstance(children, dict):
            raise ValueError(f"{source}: {kind} of {printable(name) or 'the module'} is {described(children)}")
        for child, value in children.items():
            full = f"{name}{child}"
            if next(left, None) is None or len(full) > _NAME:
                raise ValueError(f"{source} has modules of more than {_MEMBERS} members, or longer names than {_NAME}")
            if kind == "_modules" and value is not None:
                yield from _tensors(value, f"{full}.", source, (*above, id(module)), left)
            elif isinstance(value, Tensor):
                yield full, value
            elif value is not None:
                raise ValueError(f"{source}: {printable(full)} is {described(value)}, no tensor")


# -------------------------------------------------------------------------------------------------- names
def _without_prefixes(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Names without what wrappers put before them, without counters, and without second copies of the same weights."""
    for name in arrays:
        if not name.isascii() or not name.isprintable() or len(name) > _NAME:
            raise ValueError(f"{source} has a tensor of the name {described(name)}, expected up to {_NAME} ASCII ones")
    arrays = {name: array for name, array in arrays.items() if name.rpartition(".")[2] not in _COUNTERS}
    aside = {name for pair in NORMALISERS for name in pair}
    for _ in range(_DEPTH):
        arrays = _without_attacker(arrays, source)
        names = arrays.keys() - aside
        heads = {"".join(name.partition(".")[:2]) for name in names}  # No network has all of its layers in one.
        prefix = next(iter(heads), "")
        if len(heads) != 1 or not prefix.endswith("."):
            return arrays
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    raise ValueError(f"{source} has names of more than {_DEPTH} parts")


def _without_attacker(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """MadryLab's files hold everything twice, once for an attacker, which must be the same."""
    copies = {name.removeprefix("attacker."): name for name in arrays if name.startswith("attacker.")}
    for name, copy in copies.items():
        original = arrays.get(name.replace("normalize.", "normalizer.", 1) if name.startswith("normalize.") else name)
        if original is None or not np.array_equal(original, arrays[copy]):
            raise ValueError(f"{source}: {copy} is not the same as the model's own")
    return {name: array for name, array in arrays.items() if not name.startswith("attacker.")}
