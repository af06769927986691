"""Models that may be published with noise on their parameters after one deletion, and what the noise of each costs.

Compares, for the same deletion, a fair Newton step with descent (descent-to-delete, Neel et al. 2021), and their a
priori distance and conversion with the distance that is certified afterwards and the exact one. Noise that is fitted to
the deletion which it hides shows what a guarantee needs and gives none; see ``output_perturbation``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.calibration import calibrate_draws
from fmu_jax.certificates import certify
from fmu_jax.data import Data
from fmu_jax.metrics import means, measure, metrics_of_models
from fmu_jax.objective import Objective, Scalar, sample_noise
from fmu_jax.output_perturbation import certify_descent, neel_sigma, publish_sigma_from
from fmu_jax.releases import distance_to_retrained, release, scale_for
from fmu_jax.removal import Removal, remove
from fmu_jax.removal.methods import check_forget
from fmu_jax.showing import one_line

MEASURES = ("accuracy", "equalized_odds_mean", "demographic_parity", "equal_opportunity")


class Publishable(NamedTuple):
    """A model without its noise.

    Attributes:
      method: Removal method that made it.
      bound: Whether its distance was known beforehand (``a_priori``) or is computed from the model (``a_posteriori``).
      steps: Number of gradient steps of ``descent``; None for other methods.
      params: Its parameters.
      distance: Bound on their distance to the retrained ones.
      sigma_from: ``(distance, epsilon, delta) -> sigma``, the standard deviation of the noise.
    """

    method: str
    bound: Literal["a_priori", "a_posteriori"]
    steps: int | None
    params: Float[Array, " d"]
    distance: float
    sigma_from: Callable[[Scalar, Scalar, Scalar], Array]

    __repr__ = one_line()


def publishable(
    objective: Objective, before: Float[Array, " d"], data: Data, forget: Any, *, steps: Sequence[int], delta: Scalar
) -> list[Publishable]:
    """Removes the same rows by a fair Newton step and by descents of several lengths.

    Args:
      objective: Objective for the linear model.
      before: Its parameters, trained on ``data``.
      data: Rows on which it was trained.
      forget: Rows to remove, as for ``remove``.
      steps: Numbers of gradient steps.
      delta: Failure probability, in (0, 1).

    Returns:
      The model after the fair Newton step, then that after each descent, twice: with its a priori distance and Neel et
      al.'s noise, and with its a posteriori distance and the exact noise.

    Raises:
      ValueError: As ``certify_descent`` and ``remove``.

    >>> from fmu_jax import datasets, fit
    >>> data, objective = datasets.synthetic(200, 3, seed=0).train, Objective(l2=1e-2, fairness=1.0)
    >>> newton, neel, ours = publishable(objective, fit(objective, data).params, data, [3, 14], steps=[20], delta=1e-5)
    >>> newton.distance < ours.distance < neel.distance, neel.bound, neel.steps
    (True, 'a_priori', 20)
    """
    newton = remove(objective, before, data, forget)
    certificate = certify(objective, before, newton, sigma=1.0, delta=delta)
    bound = min(float(certificate.local_distance_bound), float(certificate.distance_bound))
    found = [Publishable("fair_newton", "a_posteriori", None, newton.params, bound, publish_sigma_from)]
    for count in steps:
        removal = remove(objective, before, data, forget, method="descent", steps=count)
        # The distances do not depend on the noise that will be published.
        c = certify_descent(objective, before, removal, publish_sigma=1.0, delta=delta, steps=count)
        rest = count, removal.params
        found.append(Publishable("descent", "a_priori", *rest, float(c.a_priori_distance), neel_sigma))
        found.append(Publishable("descent", "a_posteriori", *rest, float(c.distance), publish_sigma_from))
    return found


def release_table(
    objective: Objective, removal: Removal, test: Data, *, mus: Sequence[float], admitted: float, key: Array
) -> list[dict[str, Any]]:
    """A release of one model at each of several guarantees, for an operator who chooses one.

    Args:
      objective: Objective for the linear model.
      removal: Removal whose model is released.
      test: Rows for accuracy and fairness.
      mus: Gaussian-DP parameters, > 0.
      admitted: The largest distance to the retrained model that may be released, > 0; fixed beforehand.
      key: PRNG key; every release draws the same noise but for its scale, so only one of them may be published.

    Returns:
      A row of plain numbers for each ``mu``: ``mu``, ``noise`` (its scale), ``distance`` as certified; and where that
      is admitted also ``certified_mu``, ``epsilon`` and ``metrics.measure`` of the release.

    Raises:
      ValueError: As ``releases.release``.
    """
    distance, table = distance_to_retrained(objective, removal), []
    for mu in mus:
        scale = scale_for(admitted, mu=mu)
        row: dict[str, Any] = {"mu": mu, "noise": float(scale), "distance": float(distance)}
        if distance <= admitted:
            found = release(removal.params, distance, key=key, scale=scale, admitted=admitted)
            row |= {"certified_mu": float(found.mu), "epsilon": float(found.epsilon)}
            row |= measure(objective, found.params, test)
        table.append(row)
    return table


def cost_table(
    objective: Objective, before: Float[Array, " d"], data: Data, test: Data, forget: Any, *, epsilons: Sequence[float],
    steps: Sequence[int], delta: float, draws: int, key: Array,
) -> list[dict[str, Any]]:  # fmt: skip
    """What hiding one deletion costs in accuracy and fairness, by noise on the objective or on published parameters.

    Args:
      objective: Objective for the linear model.
      before: Its parameters, trained on ``data`` without noise.
      data: Rows on which it was trained.
      test: Rows for accuracy and fairness.
      forget: Row indices to remove.
      epsilons: What every method has to certify.
      steps: Numbers of gradient steps of descent.
      delta: Failure probability, in (0, 1).
      draws: Number of noise draws to average over.
      key: PRNG key of all draws.

    Returns:
      Rows of plain numbers: first the retrained model without noise (epsilon zero); for each of ``publishable`` and
      each epsilon one with noise on the published parameters (``noise`` is "published"), with certified and true
      ``distance``; and for each epsilon fair Newton with the smallest noise on the objective that certifies it
      ("objective"; medians of ``sigma`` and ``distance``; None where no level does, see ``calibration``).

    Raises:
      ValueError: As ``publishable`` and ``calibrate_draws``.
    """

    def measured(models: Array) -> dict[str, float]:
        return means(metrics_of_models(objective, models, test), MEASURES)

    unit = sample_noise(jnp.zeros((draws, before.shape[0])), key=key, sigma=1.0)
    retrained = remove(objective, before, data, forget, method="retrain").params
    table: list[dict[str, Any]] = [{"epsilon": 0.0, "method": "retrain", "sigma": 0.0, "distance": 0.0}]
    table[0] |= measured(retrained[None])
    for found in publishable(objective, before, data, forget, steps=steps, delta=delta):
        about = {"method": found.method, "bound": found.bound, "noise": "published", "distance": found.distance}
        about |= {"true_distance": float(jnp.linalg.norm(found.params - retrained))}
        about |= {} if found.steps is None else {"steps": found.steps}
        sigmas = found.sigma_from(found.distance, jnp.array(epsilons), delta).tolist()
        for epsilon, sigma in zip(epsilons, sigmas, strict=True):
            table.append(about | {"epsilon": epsilon, "sigma": sigma} | measured(found.params[None] + sigma * unit))
    mask = check_forget(data, forget)
    for epsilon in epsilons:
        row = {"epsilon": epsilon, "method": "fair_newton", "noise": "objective"}
        found = calibrate_draws(objective, data, mask, unit, epsilon=epsilon, delta=delta, init=before)
        if bool(jnp.all(found.converged)):
            row |= {name: float(jnp.median(getattr(found, name))) for name in ("sigma", "distance")}
            row |= measured(found.params)
        else:
            row |= dict.fromkeys(("sigma", "distance", *MEASURES))
        table.append(row)
    return table
