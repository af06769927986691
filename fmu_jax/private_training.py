r"""Feature extractors with differential privacy: DP-SGD by the library jax-privacy (extra ``private``).

Each step draws rows by Poisson sampling, clips the gradient of each row to ``clip``, adds ``N(0, (multiplier clip)^2)``
and takes an Adam step (Abadi et al. 2016). Clipping, sampling, noise calibration and the privacy-loss accountant are
jax-privacy's; the guarantee is for one row added or removed, which is what a removal is. ``heads.with_features`` adds
it to a head's certificate. Not imported by ``fmu_jax``: without the extra everything else works.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from fmu_jax import row_blocks
from fmu_jax.objective import Params
from fmu_jax.privacy import check_positive, check_probability
from fmu_jax.showing import one_line


class PrivateFit(NamedTuple):
    """A feature extractor and its privacy guarantee.

    Attributes:
      params: The trained parameters.
      epsilon, delta: The guarantee for one row.
      noise_multiplier: Standard deviation of the noise over the clipping norm.
      batch_sizes: Rows drawn at each step, ``(steps,)``.
    """

    params: Any
    epsilon: float
    delta: float
    noise_multiplier: float
    batch_sizes: np.ndarray

    __repr__ = one_line()


def train_private(
    loss: Callable[[Params, Any], Float[Array, ""]],
    params: Params,
    rows: Any,
    *,
    key: Array,
    epsilon: float,
    delta: float,
    steps: int = 300,
    batch: int = 256,
    clip: float = 1.0,
    learning_rate: float = 0.01,
) -> PrivateFit:
    """Trains by DP-SGD to a given (epsilon, delta).

    Args:
      loss: ``loss(params, row) -> scalar`` of a single row.
      params: Initial parameters, drawn without the rows.
      rows: A pytree of arrays whose first axis counts rows; all of them may be drawn. Their number is taken as public.
      key: PRNG key, required; it and the noise it makes are secret.
      epsilon: Epsilon of the guarantee to reach.
      delta: Failure probability of the guarantee to reach.
      steps: Number of steps.
      batch: Expected number of rows in one.
      clip: Largest norm of a row's gradient.
      learning_rate: Learning rate of Adam, which reads noisy gradients only and so costs nothing more.

    Returns:
      A ``PrivateFit``, whose epsilon is the accountant's for the noise that was used, at most the one asked for.

    Raises:
      ImportError: Jax-privacy is not installed.
      ValueError: A number out of range.

    Source: Abadi et al. (2016), "Deep learning with differential privacy", Algorithm 1.
    """
    check_positive(epsilon=epsilon, clip=clip, learning_rate=learning_rate, steps=steps)
    check_probability(delta=delta)
    count = len(jax.tree.leaves(rows)[0])
    if not 1 <= batch <= count:
        raise ValueError(f"`batch` must be between 1 and the number of rows {count}, got {batch}")
    try:
        from jax_privacy import batch_selection, clipping  # pyright: ignore[reportMissingImports] - of an extra
    except ImportError as error:
        raise ImportError("private training needs jax-privacy; install the extra: pip install '.[private]'") from error
    multiplier, reached = _calibrate(epsilon, delta, steps, batch, count)
    for_batches, for_noise = jax.random.split(key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(for_batches)))
    chosen = list(batch_selection.CyclicPoissonSampling(batch / count, steps).batch_iterator(count, rng))
    sizes = np.array([len(indices) for indices in chosen])
    # Padding takes row 0 with weight 0; capacities in steps of 64 spare compilations.
    drawn = np.zeros((steps, -(-max(int(sizes.max()), 1) // 64) * 64), np.int32)
    for line, indices in zip(drawn, chosen, strict=True):
        line[: len(indices)] = indices
    weights = (np.arange(drawn.shape[1])[None, :] < sizes[:, None]).astype(jax.tree.leaves(params)[0].dtype)
    summed = clipping.clipped_grad(
        lambda p, row, weight: weight * loss(p, row), l2_clip_norm=clip, batch_argnums=(1, 2), keep_batch_dim=False
    )
    trained = _train(summed, params, rows, for_noise, drawn, weights, multiplier * clip, batch, learning_rate)
    return PrivateFit(trained, reached, delta, multiplier, sizes)


def _calibrate(epsilon, delta, steps, batch, count) -> tuple[float, float]:
    """The least noise multiplier for the guarantee, and the epsilon that it has."""
    from jax_privacy import accounting  # pyright: ignore[reportMissingImports] - of an extra

    # Pessimistic at any grid of the privacy loss; this one is ten times faster than the default and hardly looser.
    grid = accounting.PldAccountantConfig(value_discretization_interval=1e-3)
    accountant = accounting.DpsgdTrainingAccountant(dp_accountant_config=grid)
    common = {"num_samples": count, "batch_sizes": batch, "num_updates": steps}
    multiplier = accounting.calibrate_noise_multiplier(
        target_epsilon=epsilon, target_delta=delta, accountant=accountant, tol=0.01, **common
    )
    params = accounting.DpParams(noise_multipliers=multiplier, num_samples=count, delta=delta, batch_size=batch)
    return float(multiplier), float(accountant.compute_epsilon(steps, params))


def _train(summed, params, rows, key, drawn, weights, sigma, batch, learning_rate):
    """The steps, in one scan; ``summed(params, rows, weights)`` is the sum of clipped gradients."""
    optimizer = optax.adam(learning_rate)

    @jax.jit
    def run(params, rows, key):
        def step(carry, inputs):
            params, moments = carry
            index, indices, weight = inputs
            part = jax.tree.map(lambda leaf: row_blocks.rows_at(leaf, indices), rows)
            noise = optax.tree.random_like(jax.random.fold_in(key, index), params)
            grad = optax.tree.add_scale(summed(params, part, weight), sigma, noise)
            updates, moments = optimizer.update(optax.tree.scale(1 / batch, grad), moments)
            return (optax.apply_updates(params, updates), moments), None

        inputs = jnp.arange(len(drawn), dtype=jnp.int32), jnp.asarray(drawn), jnp.asarray(weights)
        return jax.lax.scan(step, (params, optimizer.init(params)), inputs)[0][0]

    return run(params, rows, key)
