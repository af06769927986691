"""Certificates: one for the training and one for each request, each naming the digest of the one before.

A certificate may be handed out, so nothing in it depends on the deleted rows except through a release. It states
neither the certified distance nor whether the model was unlearned or retrained, and its rates are those of the
published model. Rates have three decimals: more of them, before and after, would tell the group of a held-out person
who was deleted, and whether the model was right about them.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmu_jax.deletion import guarantee
from fmu_jax.deletion.ledger import Record
from fmu_jax.deletion.model import Settings

FORMAT = "fmu-deletion 2"
PROJECT = "fmu-pags-jax"


def make(
    settings: Settings,
    params: np.ndarray,
    previous: Record | None,
    *,
    fresh: bool,
    ids: Iterable[bytes] = (),
    deleted: Mapping[str, int],
    remaining: Mapping[str, int],
    ignored: Mapping[str, int] | None = None,
    after: Mapping[str, Any],
) -> Record:
    """Writes a certificate.

    Args:
      settings: Settings of the store.
      params: What is published with it, ``(d,)``.
      previous: The certificate before it; None for the training.
      fresh: Whether a release is published with it; else the model stays as it was, or is that of the training.
      ids: Hashes of the people that were deleted.
      deleted: How many people, ``train`` and ``test``.
      remaining: The same of who remains.
      ignored: How many ids were passed over, by reason.
      after: How the published model does now, from ``model.assess``; what the one before did the previous one says.

    Returns:
      The record; its number follows the previous one's.
    """
    last = {} if previous is None else parse(previous)
    number = last["series"]["released"] if last else 0
    now = datetime.datetime.now(datetime.UTC)
    content = {
        "format": FORMAT,
        "store": settings.store,
        "number": last["number"] + 1 if last else 0,
        "time": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "deleted": dict(deleted),
        "ignored": dict(ignored or {}),
        "remaining": dict(remaining),
        **promise(settings, number + fresh, fresh),
        "model": digest_of_params(params),
        "before": last.get("after"),
        "after": dict(after),
        "dtype": str(params.dtype),
        "versions": versions(),
        "ids": sorted(name.hex() for name in ids),
        "previous": None if previous is None else previous.digest,
    }
    text = to_json(content)
    return Record(content["number"], text, digest_of(text))


def promise(settings: Settings, number: int, fresh: bool) -> dict[str, Any]:
    """What a certificate says of the guarantee, after so many releases: all of it follows from the settings.

    Args:
      settings: Settings of the store.
      number: How many releases there are.
      fresh: Whether the last one came with this certificate.
    """
    spent = guarantee.cost(settings, number)
    return {
        "release": {
            "number": number,
            "mu": spent.mu,
            "epsilon": spent.epsilon,
            "delta": settings.delta,
            "admitted_distance": guarantee.admitted(settings, number),
            "noise_scale": settings.scale,
        }
        if fresh
        else None,
        "series": {
            "released": number,
            "mu": spent.series_mu,
            "epsilon": spent.series_epsilon,
            "delta": settings.delta,
            "planned_releases": settings.releases,
            "planned_mu": settings.mu,
            "planned_left": spent.left,
        },
        "statement": guarantee.statement(settings, number, fresh),
    }


def to_json(content: Mapping[str, Any]) -> str:
    """Strict JSON, as certificates and ``model.json`` are written."""
    return json.dumps(content, allow_nan=False, indent=1) + "\n"


def digest_of(text: str) -> str:
    """SHA-256 of a certificate's text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_params(params: np.ndarray) -> str:
    """SHA-256 of published parameters as little-endian float64, in hexadecimal."""
    return hashlib.sha256(np.asarray(params, "<f8").tobytes()).hexdigest()


def parse(record: Record) -> dict[str, Any]:
    """A certificate's content.

    Raises:
      ValueError: It is no JSON object.
    """
    content = json.loads(record.text)
    if not isinstance(content, dict):
        raise ValueError(f"certificate {record.number} is no JSON object")
    return content


@functools.cache
def versions() -> dict[str, str]:
    """Which versions, and which code of this package, write a certificate; the same text throughout a process."""
    code = digest_of_code(Path(__file__).resolve().parents[1], (".",))
    found = {"python": platform.python_version(), "code": code}
    for name, distribution in {"project": PROJECT, "jax": "jax", "jaxlib": "jaxlib", "numpy": "numpy"}.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:  # A checkout on the path, not installed.
            found[name] = "not installed"
    return dict(sorted(found.items()))


@functools.cache
def digest_of_code(root: Path, folders: tuple[str, ...]) -> str:
    """The first 12 hexadecimal digits of a SHA-256 over the Python sources in some folders of ``root``."""
    digest = hashlib.sha256()
    for path in [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]:
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
