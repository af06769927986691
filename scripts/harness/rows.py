"""Rows: the unit of every result, a flat mapping from column names to scalars, in JSON Lines and CSV.

JSON Lines is the exact form, and strict JSON: floats that JSON cannot hold are the strings ``"NaN"``, ``"Infinity"``
and ``"-Infinity"`` (so a row may not hold those three words as text). CSV is the convenient form: ``nan``, ``inf``,
``-inf``, an empty cell for None or for a column that the row lacks, and a list as its JSON text.
"""

import csv
import dataclasses
import gzip
import io
import json
import math
import os
import platform
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_CHECKOUT = Path(__file__).resolve().parents[2]


def plain(value: Any, name: str = "value") -> Any:
    """Turn a value into None, a bool, an int, a float, a string, or a list of them.

    Raises:
      ValueError: If it is anything else, such as an array of several elements, or one of the three reserved words.
    """
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, str) and value in _SPECIAL:
        raise ValueError(f"{name}: the text {value!r} is how rows spell a float; use another word")
    if isinstance(value, list | tuple):
        return [plain(item, name) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    shape = getattr(value, "shape", None)
    found = f"an array of shape {shape}" if shape is not None else f"a {type(value).__name__}"
    raise ValueError(
        f"{name}: rows hold scalars, text and lists of them, got {found}; reduce it or use several columns"
    )


def flatten(config: Any, *, without: Container[str] = ()) -> Row:
    """Turn a configuration into a flat row.

    >>> flatten({"l2": 1e-4, "data": {"name": "adult", "shares": (0.01, 0.05)}})
    {'l2': 0.0001, 'data.name': 'adult', 'data.shares': [0.01, 0.05]}
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    if not isinstance(config, Mapping):
        raise ValueError(f"a configuration is a dataclass or a mapping, got a {type(config).__name__}")
    flat: Row = {}
    for name, value in config.items():
        if name in without:
            continue
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": found for inner, found in flatten(value).items()}
        else:
            flat[name] = plain(value, name)
    return flat


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Write plain values (and lists and mappings of them) as strict JSON; see the module for NaN and infinities."""
    spelled = json.loads(json.dumps(value), parse_constant=str)  # The three words, as text.
    return json.dumps(spelled, allow_nan=False, indent=indent)


def from_json(text: str) -> Any:
    """Read what `to_json` wrote.

    Raises:
      ValueError: If the text is no JSON.
    """

    def revive(item: Any) -> Any:
        if isinstance(item, str):
            return _SPECIAL.get(item, item)
        if isinstance(item, dict):
            return {key: revive(inner) for key, inner in item.items()}
        return [revive(inner) for inner in item] if isinstance(item, list) else item

    return revive(json.loads(text))


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    r"""Write rows as JSON Lines: one strict JSON object a line.

    >>> to_jsonl([{"n": 3, "loss": float("nan")}])
    '{"n": 3, "loss": "NaN"}\n'
    """
    return "".join(to_json(dict(row)) + "\n" for row in rows)


def from_jsonl(text: str) -> list[Row]:
    """Read JSON Lines that `to_jsonl` wrote."""
    return [from_json(line) for line in text.split("\n") if line.strip()]


def to_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    r"""Write rows as CSV with a header: all columns, in the order in which they first appear.

    >>> to_csv([{"n": 3, "loss": 0.5}, {"n": 4, "note": "a,b"}])
    'n,loss,note\n3,0.5,\n4,,"a,b"\n'
    """
    table = list(rows)
    columns = list(dict.fromkeys(name for row in table for name in row))
    if not columns:
        return ""
    body = [[to_json(v) if isinstance(v, list | tuple) else v for v in map(row.get, columns)] for row in table]
    return "".join(map(_csv_line, [columns, *body]))


def _csv_line(cells: Iterable[Any]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)  # Its lines end in CR LF, or it would not quote every line break inside a cell.
    return line.getvalue().removesuffix("\r\n") + "\n"


def read_published(path: Path) -> list[Row]:
    """The rows of a ``.csv.gz`` as `scripts.reproduce` publishes them; cells get the types that they look like.

    Raises:
      ValueError: If it is no such file.
    """
    words = {"": None, "True": True, "False": False, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}

    def value(text: str) -> Any:
        try:
            return words[text] if text in words else json.loads(text)
        except ValueError:
            return text

    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            return [{name: value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is no .csv.gz of rows, or is damaged ({error}); name a run folder instead") from error


def environment() -> Row:
    """What a result depends on besides its configuration: versions, machine, device, precision, code."""
    import jax  # Here, so that a run folder can be read without waiting for it.

    from fmu_jax.deletion import records

    devices = jax.devices()
    return {
        **records.versions(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "dtype": str(jax.dtypes.canonicalize_dtype(float)),
        "code": records.digest_of_code(_CHECKOUT, ("fmu_jax", "pags_jax", "scripts")),
    }
