r"""The guarantee of noise on the published parameters, as in descent-to-delete (Neel et al. 2021).

``descent`` ends, after ``T`` gradient steps on what remains, at ``theta_T``; what is published is
``theta_T + N(0, publish_sigma^2 I)``. The reference is the exact minimiser ``theta'`` of what remains, published with
noise of the same scale. The noise is drawn after the descent and depends on nothing, so these are one Gaussian
shifted by at most ``distance >= |theta_T - theta'|``, and (epsilon, delta) follows exactly (``gaussian_epsilon``).
Two distances, both from numbers that the operator has:

    a priori      gamma^T |grad F'(theta_0)| / (n_w l2),   gamma = max(|1 - eta M|, |1 - eta m|)
    a posteriori  from the gradient and the curvature at theta_T, see ``distances``

With the default step size ``eta = 2 / (M + m)`` the rate is Neel et al.'s ``gamma = (M - m) / (M + m)``, and the a
priori bound is theirs, started from the gradient that ``theta_0`` has instead of from a Lipschitz constant. They
convert distance to epsilon through concentrated differential privacy (``neel_epsilon``), which asks for a little more
noise than the exact trade-off.

What is guaranteed, and what is not:

- One model published after the deletion, ``theta_T + noise``, with noise that nobody sees and that is fresh at every
  publication; not models published before it. ``theta_T`` itself stays secret, and with it ``removal.start``: Neel et
  al. call that a secret state.
- ``publish_sigma`` must not depend on the forgotten rows. Fix it with the distance that you admit, by
  ``publish_sigma_from(admitted, epsilon, delta)``, and descend until ``certificate.distance`` is no larger. Noise
  fitted to the distance of the very deletion that it hides tells how large that was, and no epsilon here counts that.
- Several publications compose: shifts ``distance_k / publish_sigma_k`` add in squares, or epsilons and deltas add up.
- A perturbation ``b`` of the training objective may be there; both models share it, and the guarantee holds given it.
- The Gaussian is one of real numbers; what floating-point sampling leaks (Mironov 2012) is not covered.

The same trade-off serves any deterministic removal whose distance is bounded: after ``fair_newton`` it is
``gaussian_epsilon(certificate.local_distance_bound, publish_sigma, delta)``.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmu_jax.contraction import Replay, replay_descent
from fmu_jax.distances import check_certifiable, local_distance, retrained_region
from fmu_jax.fitting import check_params
from fmu_jax.objective import Objective, Scalar
from fmu_jax.privacy import check_norm, check_positive, check_probability, gaussian_epsilon, gaussian_mu
from fmu_jax.removal import Removal
from fmu_jax.showing import one_line
from fmu_jax.tails import outward, round_up
from fmu_jax.tracing import is_traced

#: Published parameters that noise of the stated scale explains with a smaller probability were made otherwise.
_IMPLAUSIBLE = 1e-12


@dataclasses.dataclass(frozen=True)
class DescentCertificate:
    """Bounds on ``theta_T`` that need no retraining; every field is a scalar.

    Attributes:
      epsilon: Epsilon of the published model, from ``distance``, exact at ``delta``.
      a_priori_epsilon: The same from ``a_priori_distance``.
      neel_epsilon: Neel et al.'s own: ``a_priori_distance`` under their conversion.
      distance: The least of the three bounds on ``|theta_T - theta'|`` that follow.
      a_priori_distance: Bound from the gradient at the start and the contraction of every step.
      distance_bound: Bound from the gradient at ``theta_T`` by strong convexity.
      local_distance_bound: The same by the curvature at ``theta_T``; infinite where the bound does not apply.
      contraction: ``gamma``, the factor by which a step at least shortens the distance; 1 or more where it may diverge.
      rounding_slack: How far the descent's last iterate may lie from the one certified, added to each bound.
      publish_sigma, delta: What the epsilons were computed for.
      dtype: Floating-point type in which all of it was computed.
    """

    epsilon: Scalar
    a_priori_epsilon: Scalar
    neel_epsilon: Scalar
    distance: Scalar
    a_priori_distance: Scalar
    distance_bound: Scalar
    local_distance_bound: Scalar
    contraction: Scalar
    rounding_slack: Scalar
    publish_sigma: Scalar
    delta: Scalar
    dtype: str

    __repr__ = one_line(values=4)


_FIELDS = [field.name for field in dataclasses.fields(DescentCertificate) if field.name != "dtype"]
jax.tree_util.register_dataclass(DescentCertificate, data_fields=_FIELDS, meta_fields=["dtype"])


@jax.default_matmul_precision("highest")
def certify_descent(
    objective: Objective,
    before,
    removal: Removal,
    *,
    publish_sigma: Scalar,
    delta: Scalar,
    steps: int = 50,
    step_size: Scalar | None = None,
    noise=None,
) -> DescentCertificate:
    """Certifies the publication of a model unlearned by ``descent``, linear model only.

    ``removal.params`` may hold the published noise already or not yet, so the descent is replayed, and the certificate
    speaks of its end.

    Args:
      objective: Objective of the training and of the removal.
      before: The parameters before the removal, ``(d,)``, from which the descent started.
      removal: Removal from ``remove(..., method="descent")``.
      publish_sigma: Standard deviation of the noise on the published parameters, > 0.
      delta: Failure probability, in (0, 1).
      steps: As ``remove`` was given.
      step_size: As ``remove`` was given.
      noise: The perturbation of the training objective.

    Returns:
      A ``DescentCertificate``. Under ``jit``, where nothing can be raised, its distances and epsilons are infinite if
      ``removal`` is not that of such a descent.

    Raises:
      ValueError: A number out of range, a model that is not one linear model, or a ``removal`` that is not where
        ``steps`` steps from ``before`` end, with noise of ``publish_sigma`` or without.

    >>> from fmu_jax import datasets, fit, remove, sample_noise
    >>> data = datasets.synthetic(500, 3, seed=0).train
    >>> objective = Objective(l2=1e-2, fairness=1.0)
    >>> before = fit(objective, data).params
    >>> secret = remove(objective, before, data, [3, 14, 15], method="descent", steps=20)
    >>> certificate = certify_descent(objective, before, secret, publish_sigma=0.1, delta=1e-5, steps=20)
    >>> bool(certificate.epsilon <= certificate.a_priori_epsilon <= certificate.neel_epsilon)
    True
    >>> published = secret.params + sample_noise(before, key=jax.random.key(0), sigma=0.1)
    """
    check_certifiable(objective, removal)
    check_params(objective, before, removal.data, noise)
    check_positive(publish_sigma=publish_sigma)
    check_probability(delta=delta)
    if is_traced(steps):
        raise TypeError("`steps` is part of the program and cannot be traced; pass a whole number")
    if int(steps) != steps or steps < 1:
        raise ValueError(f"`steps` must be a whole number of at least 1, got {steps}")
    if step_size is not None:
        check_positive(step_size=step_size)
    replay = replay_descent(objective, before, removal, noise=noise, steps=steps, step_size=step_size)
    plausible = _plausible(replay, publish_sigma)
    _check_replay(replay, plausible, publish_sigma, steps)
    region = retrained_region(objective, removal._replace(params=replay.end), noise=noise)
    return _certify(replay, region, replay.same_start & plausible, publish_sigma, delta)


def _check_replay(replay: Replay, plausible, publish_sigma, steps) -> None:
    if is_traced(replay, plausible):
        return
    if not replay.same_start:
        raise ValueError(
            f"`removal` is not that of {steps} steps of descent from `before`: its last step starts "
            f"{float(replay.start_off):.3g} away from theirs; pass the removal by method 'descent', with its own "
            "`steps`, `step_size` and `noise`"
        )
    if not plausible:
        raise ValueError(
            f"`removal.params` is {float(replay.params_off):.3g} away from the end of the descent, which noise of "
            f"publish_sigma={publish_sigma} cannot explain; pass the `publish_sigma` that it was published with"
        )


@jax.jit
def _plausible(replay: Replay, publish_sigma):
    """Whether the removal's parameters are the end of the descent, as it is or with the stated noise."""
    d = replay.end.shape[0]
    # Chernoff's bound on either tail of the chi-square distribution: exp(-(d/2) (r - 1 - ln r)).
    ratio = (replay.params_off / publish_sigma) ** 2 / d
    exponent = d / 2 * (ratio - 1 - jnp.log(ratio))
    return (replay.params_off <= replay.slack) | (exponent < -math.log(_IMPLAUSIBLE))


@jax.jit
def _certify(replay: Replay, region, known, publish_sigma, delta) -> DescentCertificate:
    def bound(distance):
        return jnp.where(known & ~jnp.isnan(distance), distance, jnp.inf)

    a_priori = bound(replay.distance)
    convex = bound(region.distance + replay.slack)
    local = bound(local_distance(region) + replay.slack)
    distance = jnp.minimum(a_priori, jnp.minimum(convex, local))
    epsilon, a_priori_epsilon = gaussian_epsilon(jnp.stack([distance, a_priori]), publish_sigma, delta)
    return DescentCertificate(
        epsilon=epsilon,
        a_priori_epsilon=a_priori_epsilon,
        neel_epsilon=neel_epsilon(a_priori, publish_sigma, delta),
        distance=distance,
        a_priori_distance=a_priori,
        distance_bound=convex,
        local_distance_bound=local,
        contraction=replay.contraction,
        rounding_slack=replay.slack,
        publish_sigma=jnp.asarray(publish_sigma, a_priori.dtype),
        delta=jnp.asarray(delta, a_priori.dtype),
        dtype=str(a_priori.dtype),
    )


def publish_sigma_from(distance: Scalar, epsilon: Scalar, delta: Scalar) -> Array:
    """Noise level at which a distance costs ``epsilon``: the inverse of ``gaussian_epsilon`` in sigma, by bisection.

    Args:
      distance: Bound on ``|theta_T - theta'|``, >= 0.
      epsilon: > 0.
      delta: Failure probability, in (0, 1).

    Returns:
      The scalar standard deviation; like the functions below it broadcasts.

    Raises:
      ValueError: A concrete number out of range.

    >>> round(float(publish_sigma_from(1.0, 1.0, 1e-5)), 4), round(float(neel_sigma(1.0, 1.0, 1e-5)), 4)
    (3.7306, 4.9006)
    """
    check_norm(distance=distance)
    check_positive(epsilon=epsilon)
    check_probability(delta=delta)
    return outward(_publish_sigma, distance, gaussian_mu(epsilon, delta))


def _publish_sigma(xp, distance, mu):
    return round_up(xp, distance / mu, 4, distance > 0)


def neel_epsilon(distance: Scalar, publish_sigma: Scalar, delta: Scalar) -> Array:
    """Neel et al.'s conversion: ``rho + 2 sqrt(rho ln(1/delta))``, ``rho = distance^2 / (2 publish_sigma^2)``.

    Source: Neel et al. (2021), proof of the guarantee of perturbed gradient descent, by Bun & Steinke (2016),
    Proposition 1.3. Arguments and errors as for ``gaussian_epsilon``.
    """
    check_norm(distance=distance)
    check_positive(publish_sigma=publish_sigma)
    check_probability(delta=delta)
    return outward(_neel_epsilon, distance, publish_sigma, delta)


def _neel_epsilon(xp, distance, publish_sigma, delta):
    mu = distance / publish_sigma
    return round_up(xp, mu * (mu / 2 + xp.sqrt(-2 * xp.log(delta))), 32, distance > 0)


def neel_sigma(distance: Scalar, epsilon: Scalar, delta: Scalar) -> Array:
    """Neel et al.'s noise: ``distance / (sqrt 2 (sqrt(ln(1/delta) + epsilon) - sqrt(ln(1/delta))))``.

    The inverse of ``neel_epsilon``. Arguments and errors as for ``publish_sigma_from``.
    """
    check_norm(distance=distance)
    check_positive(epsilon=epsilon)
    check_probability(delta=delta)
    return outward(_neel_sigma, distance, epsilon, delta)


def _neel_sigma(xp, distance, epsilon, delta):
    left = -xp.log(delta)
    # The difference of roots, without cancellation.
    ratio = (xp.sqrt(left + epsilon) + xp.sqrt(left)) / (2**0.5 * epsilon)
    return round_up(xp, distance * ratio, 32, distance > 0)
