"""Verifies a store: everything is computed again from the stored rows and compared; no export is written.

Opening a ledger still finishes what a killed process left in SQLite's own log, unless the store lies on a read-only
disk, where it is read without locks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fmu_jax.deletion import ledger, ledger_checks, model, model_checks
from fmu_jax.deletion.evidence import Evidence, look

CHECKS: dict[str, Callable[[Evidence], str]] = {
    "database": ledger_checks.check_database,
    "seal": ledger_checks.check_seal,
    "privacy": ledger_checks.check_privacy,
    "chain": ledger_checks.check_chain,
    "certificates": ledger_checks.check_certificates,
    "people": ledger_checks.check_people,
    "rows": ledger_checks.check_rows,
    "numbers": ledger_checks.check_numbers,
    "guarantee": ledger_checks.check_guarantee,
    "settings": model_checks.check_settings,
    "accumulators": model_checks.check_accumulators,
    "parameters": model_checks.check_parameters,
    "distance": model_checks.check_distance,
    "release": model_checks.check_release,
    "measures": model_checks.check_measures,
    "model.json": ledger_checks.check_model,
}
"""Every check by the name under which it is reported."""


_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError)
"""What reading a damaged ledger can end in, beside the errors that say what is wrong."""


class Outcome(NamedTuple):
    """The finding of a check, in words."""

    agrees: bool
    detail: str


@model.in_float64
def verify(store: str | Path) -> dict[str, Outcome]:
    """Computes everything in a store anew from its rows, and compares; nobody else writes to it meanwhile.

    Args:
      store: The store's folder; it may be read-only.

    Returns:
      By the name of each check, whether things agree and what was found.

    Raises:
      ValueError: The ledger, or the state in it, cannot be read at all.
      OSError: The same, or there is no store.
    """
    folder, found = Path(store), {}
    with ledger.opened(folder, to_look=True) as db, ledger.exclusive(db):
        try:
            evidence = look(db, folder)
        except _UNREADABLE as error:
            raise ValueError(f"the ledger in {folder} cannot be read: {type(error).__name__}: {error}") from error
        for name, check in CHECKS.items():
            try:
                found[name] = Outcome(True, check(evidence))
            except (ValueError, OSError) as error:
                found[name] = Outcome(False, str(error))
            except _UNREADABLE as error:
                found[name] = Outcome(False, f"{type(error).__name__}: {error}")
    return found
