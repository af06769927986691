"""Certificates: one for the training and one for each request, each naming the digest of the one before.

A certificate holds scalars only. Bound and epsilon are rounded up to four digits: from their last digits, and the
store, a guess at a deleted row could be checked. Rates have three decimals: more of them, before and after, would tell
the group of a held-out person who was deleted, and whether the model was right about them.
"""

import datetime
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fmu_jax import stream
from fmu_jax.deletion.ledger import Record
from fmu_jax.deletion.model import Settings
from scripts.harness import rows

FORMAT = "fmu-deletion 1"
TRAINED = "trained"
UNCHANGED = "none: only held-out people, the model does not change"
STREAMED = "fair_newton, streamed"
REFRESHED = "refreshed: retrained on who remains, under the same secret noise"
# A change of these is another FORMAT, as verify compares them.
METHODS = (TRAINED, UNCHANGED, STREAMED, REFRESHED)
VERSIONS = ("project", "code", "jax", "jaxlib", "numpy", "python")
STATEMENT = (
    "Up to (epsilon, delta) nobody can tell the published model from one trained anew without these people, provided "
    "that they do not know the secret noise, that the requests were not chosen by looking at published models, and "
    "that they see this model only, not the ones published before it."
)


def rounded_up(value: float, digits: int = 4) -> float:
    """The next number of so many significant digits at or above a value.

    >>> rounded_up(0.0123412), rounded_up(2.0)
    (0.01235, 2.0)
    """
    if value == 0 or not math.isfinite(value):
        return value
    places = digits - 1 - math.floor(math.log10(abs(value)))
    near = round(value, places)
    return near if near >= value else round(near + 10.0**-places, places)


def spent(settings: Settings, state: stream.State) -> dict[str, float]:
    """What the current model has used of the budget, as certificates say it."""
    epsilon = rounded_up(float(state.epsilon))
    if float(state.epsilon) <= settings.budget:
        epsilon = min(epsilon, settings.budget)
    return {
        "residual_bound": rounded_up(float(state.residual_bound)),
        "epsilon": epsilon,
        "epsilon_left": round(max(settings.budget - epsilon, 0.0), 9),
    }


def make(
    settings: Settings,
    state: stream.State,
    previous: Record | None,
    *,
    method: str,
    ids: Iterable[bytes] = (),
    deleted: Mapping[str, int],
    remaining: Mapping[str, int],
    ignored: Mapping[str, int] | None = None,
    after: Mapping[str, Any],
) -> Record:
    """Writes a certificate.

    Args:
      settings: of the store.
      state: the model that is published with it.
      previous: the certificate before it; None for the training.
      method: how the model was reached.
      ids: hashes of the people that were deleted.
      deleted: how many people, ``train`` and ``test``.
      remaining: the same of who remains.
      ignored: how many ids were passed over, by reason.
      after: how the model does now, from ``model.assess``; what it did before is what the previous one says.

    Returns:
      The record; its number follows the previous one's.
    """
    environment = rows.environment()
    now = datetime.datetime.now(datetime.UTC)
    content = {
        "format": FORMAT,
        "store": settings.store,
        "number": 0 if previous is None else previous.number + 1,
        "time": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "method": method,
        "deleted": dict(deleted),
        "ignored": dict(ignored or {}),
        "remaining": dict(remaining),
        **spent(settings, state),
        "epsilon_budget": settings.budget,
        "delta": settings.delta,
        "sigma": settings.sigma,
        "statement": STATEMENT,
        "before": None if previous is None else parse(previous)["after"],
        "after": dict(after),
        "dtype": str(np.asarray(state.params).dtype),
        "versions": {name: environment[name] for name in VERSIONS},
        "ids": sorted(name.hex() for name in ids),
        "previous": None if previous is None else previous.digest,
    }
    text = rows.to_json(content, indent=1) + "\n"
    return Record(content["number"], text, digest_of(text))


def digest_of(text: str) -> str:
    """SHA-256 of a certificate's text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse(record: Record) -> dict[str, Any]:
    """A certificate's content.

    Raises:
      ValueError: it is no JSON object.
    """
    content = rows.from_json(record.text)
    if not isinstance(content, dict):
        raise ValueError(f"certificate {record.number} is no JSON object")
    return content
