"""Which measure of a model predicts whether its gradients are perceptually aligned: rank correlations, in words.

Srinivas et al. (2023) explain alignment by off-manifold robustness. Each model of a sweep is one point, a row of
`sweeps.join`.
"""

import itertools
import math
from collections.abc import Sequence

import jax

from pags_jax import sweeps
from pags_jax.questions import with_p
from pags_jax.sweeps import ACCURATE, ALL, Row

#: What may explain alignment, by column.
MEASURES = {
    "off": "off-manifold deviation",
    "on": "on-manifold deviation",
    "ratio": "off over on",
    "off_share": "gradient's off-manifold share",
    "test_accuracy": "test accuracy",
}
ALIGNMENTS = {"cosine": "cosine", "similarity": "1 - LPIPS"}
SHUFFLES = 9999
"""Number of random permutations for a p-value."""


def correlations(models: Sequence[Row]) -> list[Row]:
    """Rank correlations of each of ``ALIGNMENTS`` with each of ``MEASURES``, see ``sweeps.correlations``."""
    options = {"measures": MEASURES, "alignments": ALIGNMENTS, "permutations": SHUFFLES}
    return sweeps.correlations(models, key=jax.random.key(0), **options)


def lines(table: Sequence[Row]) -> list[Row]:
    """Correlations for readers: a line for each group of models and alignment, a column for each measure, as rho (p).

    Args:
      table: Table from ``correlations``.
    """
    shown: dict[tuple[str, str, bool], Row] = {}
    for row, given in itertools.product(table, (False, True)):
        if given and "rho_given" not in row:
            continue
        group = {ALL: "all losses", ACCURATE: "accurate, all losses"}.get(row["models"])
        group = (group or row["models"].replace("_", " ")) + (", given on" if given else "")
        line = shown.setdefault(
            (group, row["alignment"], given),
            {"models": group, "alignment": ALIGNMENTS[row["alignment"]], "n": row["n"]},
        )
        line["n"] = min(line["n"], row["n"])
        rho, p = (row["rho_given"], row["p_given"]) if given else (row["rho"], row["p"])
        line[MEASURES[row["measure"]]] = "none" if rho is None else f"{rho:+.2f} ({p:.2g})"
    return list(shown.values())


def sentence(table: Sequence[Row]) -> str:
    """Says which measure predicts alignment best over the accurate models, and how well the paper's measure does.

    Args:
      table: Table from ``correlations``.
    """
    parts = []
    for alignment, name in ALIGNMENTS.items():
        part = {row["measure"]: row for row in table if (row["models"], row["alignment"]) == (ACCURATE, alignment)}
        known = [row for row in part.values() if row["rho"] is not None]
        if not known:
            parts.append(f"{name}: too few models to tell")
            continue
        top, off = max(known, key=lambda row: abs(row["rho"])), part["off"]
        parts.append(
            f"{name}: {MEASURES[top['measure']]} predicts it best (rank correlation {top['rho']:+.2f}, p = "
            f"{top['p']:.2g}, {top['n']} models); off-manifold deviation has {with_p(off['rho'], off['p'])}, and "
            f"{with_p(off['rho_given'], off['p_given'])} given the on-manifold deviation"
        )
    return "; ".join(parts) + "."


def errors_of(aligned: Sequence[Row]) -> str:
    """Says how large the standard errors over images of cosine and 1 - LPIPS are; nothing if there are none.

    Args:
      aligned: Rows of alignments.

    >>> errors_of([{"cosine_error": 0.01, "similarity_error": None}, {"cosine_error": 0.02, "similarity_error": None}])
    'Standard errors over images reach 0.020 of a cosine; smaller falls say little.'
    """
    reach = []
    for name, column in (("a cosine", "cosine_error"), ("1 - LPIPS", "similarity_error")):
        errors = [row[column] for row in aligned if row[column] is not None and math.isfinite(row[column])]
        reach += [f"{max(errors):.3f} of {name}"] if errors else []
    return f"Standard errors over images reach {' and '.join(reach)}; smaller falls say little." if reach else ""
