r"""An audit by a single run of a mechanism, with many canaries at once instead of many runs.

Each canary, a row of the auditor's choice, is put by a fair coin of its own into the training rows or not. Those inside
are deleted, the model is published once, and every canary gets a score, large where the model looks as if it had been
inside. If the release is ``mu``-Gaussian-DP beside the retrained one, whatever was deleted, then

- the retrained release does not depend on the coins, so that the number ``t`` of canaries inside among those of the
  higher scores is hypergeometric there; with ``p`` the probability of ``t`` or more, the release has
  ``P(p <= u) <= Phi(Phi^-1(u) + mu)``, so that ``mu >= Phi^-1(1 - confidence) - Phi^-1(p)`` with that confidence. There
  is no factor for the number of canaries: the guarantee is of the whole set forgotten;
- two releases of different coins are ``2 mu`` apart, so that the (epsilon, delta) of ``2 mu`` holds for every canary,
  and the bound of Steinke, Nasr & Jagielski (2023), "Privacy auditing with one (1) training run", applies to it. It is
  computed by jax-privacy (extra ``private``).
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.special
import scipy.stats

from fmu_jax.arrays import as_mask, as_numbers, check_ordered
from fmu_jax.audit.roc import auc
from fmu_jax.privacy import check_probability
from fmu_jax.showing import one_line
from fmu_jax.tracing import eager_only


class OneRun(NamedTuple):
    """Lower bounds from one run, each with the asked confidence for itself.

    Attributes:
      mu: Gaussian-DP parameter of the release's Gaussian DP beside the retrained one, >= 0.
      epsilon: At ``delta``, of one canary inside or outside; compare with ``gaussian_epsilon(2 mu, 1.0, delta)``.
      auc: Area under the ROC curve of the scores, ties counted as halves; not that of its convex hull, which is above
        one half for scores that say nothing.
    """

    mu: float
    epsilon: float
    auc: float

    __repr__ = one_line()


@eager_only
def one_run(scores: Any, inside: Any, *, delta: float, confidence: float = 0.95) -> OneRun:
    """Bounds how much one published model reveals about which canaries were trained on and deleted.

    Args:
      scores: One a canary, ``(m,)``, in any unit; they may use the published model and everything but the coins.
      inside: Which canaries were trained on and deleted, ``(m,)`` bool, by independent fair coins.
      delta: Failure probability in (0, 1), at which epsilon is bounded.
      confidence: Confidence of each bound, in (0, 1).

    Returns:
      A ``OneRun``.

    Raises:
      ValueError: Scores that have no order, other shapes, or all canaries on one side.
      ImportError: Jax-privacy is not installed.

    >>> rng = np.random.default_rng(0)
    >>> inside = rng.random(400) < 0.5
    >>> found = one_run(rng.normal(size=400) + 2 * inside, inside, delta=1e-5)
    >>> found.mu > 5, found.epsilon > 1
    (True, True)
    """
    check_probability(delta=delta, confidence=confidence)
    scores, inside = np.asarray(as_numbers(scores, "scores"), float), np.asarray(as_mask(inside, "inside"))
    check_ordered(scores=scores)
    if scores.ndim != 1 or scores.shape != inside.shape:
        raise ValueError(f"`scores` and `inside` must be vectors of one length, got {scores.shape}, {inside.shape}")
    if inside.all() or not inside.any():
        raise ValueError("some canaries must be inside and some outside; draw their coins anew")
    from jax_privacy import auditing

    auditor = auditing.CanaryScoreAuditor(scores[inside], scores[~inside])
    # Ties are cut by position: an order that knows nothing of the coins.
    higher = np.argsort(scores, kind="stable")[len(scores) // 2 :]
    found, total, chosen = int(inside[higher].sum()), int(inside.sum()), len(higher)
    log_p = scipy.stats.hypergeom.logsf(found - 1, len(scores), total, chosen)
    # Near zero a bound by rounding would claim too much.
    p = max(float(np.exp(log_p)) * (1 + 1e-9), 1e-300)
    mu = scipy.special.ndtri(1 - confidence) - scipy.special.ndtri(min(p, 1 - 1e-16))
    return OneRun(
        mu=max(0.0, float(mu) * (1 - 1e-9)),
        epsilon=float(auditor.epsilon_one_run(1 - confidence, delta)),
        auc=float(auc(scores, inside)),
    )
