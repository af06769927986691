"""Does the store tell the truth? Everything is computed again from the stored rows and compared."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.deletion import exports, ledger, ledger_checks, model, model_checks
from scripts.deletion.evidence import Seen, look

CHECKS: dict[str, Callable[[Seen], str]] = {
    "database": ledger_checks.check_database,
    "privacy": ledger_checks.check_privacy,
    "chain": ledger_checks.check_chain,
    "certificates": ledger_checks.check_certificates,
    "people": ledger_checks.check_people,
    "rows": ledger_checks.check_rows,
    "numbers": ledger_checks.check_numbers,
    "settings": model_checks.check_settings,
    "accumulators": model_checks.check_accumulators,
    "parameters": model_checks.check_parameters,
    "residual": model_checks.check_residual,
    "measures": model_checks.check_measures,
    "model.json": ledger_checks.check_model,
}
"""Every check by the name under which it is reported."""


class Outcome(NamedTuple):
    """What a check found, in words."""

    agrees: bool
    detail: str


def verify(folder: Path) -> Iterator[tuple[str, Outcome]]:
    """Checks a store; nobody else writes to it meanwhile.

    Args:
      folder: the store.

    Yields:
      The name of each check, and what it found.

    Raises:
      ValueError: the ledger, or the state in it, cannot be read at all.
      OSError: the same, or there is no store.
    """
    model.use_float64()
    with ledger.opened(folder) as db:
        exports.catch_up(db, folder)
        with ledger.exclusive(db):
            seen = look(db, folder)
            for name, check in CHECKS.items():
                try:
                    outcome = Outcome(True, check(seen))
                except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
                    what = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
                    outcome = Outcome(False, f"{what}{error}")
                yield name, outcome
