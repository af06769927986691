r"""The guarantee of fresh noise on every published model, over any number of adaptive releases.

**Two worlds.** In both, the same rows are trained on, the same deletions are asked for and the same models were
published so far. In one the deletions are carried out by unlearning, which ends at ``theta^-``; in the other by exact
retraining, which ends at ``theta'``. The published model is

    theta^- + xi,   xi ~ N(0, s^2 A^-1),     with a certified |theta^- - theta'|_A <= Delta,

the scale ``s`` and the shape ``A`` (identity, or a matrix that both worlds compute alike, from the remaining rows, say)
the same in both. Given all that came before, the perturbation ``b`` of training included, the two releases are one
Gaussian shifted, so they are ``mu``-Gaussian-DP with ``mu = Delta / s`` (Dong, Roth & Su 2022, Theorem 2.7): anybody
who tries to tell the worlds apart by the release misses at least ``trade_off(mu, alpha)`` at ``alpha`` false alarms.
Nothing but ``xi`` is secret: ``b`` and the anchor may be known, or absent, ``Delta`` may have depended on them, and a
refresh that starts when a bound passes a number costs nothing.

**Shape.** With ``A`` the Hessian at zero parameters of what remains (``objective.hessian``), the noise lies in
directions that hardly change scores or penalty: that of a score is ``s |x|_{A^-1}``. (The Hessian at the model is not
  shared.)

**Series.** Releases compose to ``mu = sqrt(sum mu_i^2)``, also where requests depend on what was published (Dong, Roth
& Su 2022, Theorem 3.2 and Corollary 3.3), if each ``mu_i`` was fixed beforehand. So fix an *admitted* distance and a
scale, ``scale_for(admitted, mu=, releases=)``, and refresh whenever the certified distance exceeds the admitted one.
Never fit the scale to the deletion that it hides: it would tell how large that was. ``Delta`` is of all rows forgotten
since the reference, so there is no factor for their number.

**Not covered** are a published distance, residual or time; a random generator that is guessed; a key that is used
twice. **Rounding.** The release is rounded to a grid that depends on ``s`` and ``A`` alone, at most 1/256 of the least
standard deviation, after the noise is added, which for real numbers costs nothing; each noise is four added up, so that
its own support is far finer than the grid and reaches 10 standard deviations in float32 as well (Mironov 2012, "On
significance of the least significant bits for differential privacy"; Holohan & Braghin 2021, "Secure random sampling in
differential privacy"). That closes the leak by which low bits betray the parameters. It is no exact sampler: the
probabilities of grid points are right up to the rounding of the dtype.
"""

from fmu_jax.releases.accounting import budget, compose, scale_for, trade_off
from fmu_jax.releases.publishing import Release, distance_to_retrained, noise_shape, release, release_many
from fmu_jax.releases.rows import row_distances

__all__ = [
    "Release",
    "budget",
    "compose",
    "distance_to_retrained",
    "noise_shape",
    "release",
    "release_many",
    "row_distances",
    "scale_for",
    "trade_off",
]
