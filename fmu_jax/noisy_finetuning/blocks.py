r"""Noise in one block of parameters after another, with repairs of the other blocks in between.

Blocks are orthogonal subspaces of coordinates. Block ``i`` is clipped to ``C_i`` around the center, gets its noise
and is frozen; then the blocks that have no noise yet are fine-tuned on what remains, without noise, to fit the blocks
that do.

**Theorem.** ``mu^2 = sum_i (2 C_i / sigma_i)^2``. Proof: let ``y_i`` be the noisy block ``i``. Given those before it,
whatever is done to the other blocks on remaining rows, block ``i`` enters its clip somewhere and leaves it within
``C_i`` of the center in both worlds, so ``y_i`` is ``2 C_i / sigma_i``-Gaussian-DP given the past; the blocks compose
adaptively (Dong, Roth & Su 2022, Theorem 3.2). The last block ends it: all of the model is then noisy, and what follows
is free. A block must not move again before that: its gradient would carry the secret of those not yet noised.

Equal to one noise for all at ``sum C_i^2 = C_0^2``, so that it hides no more for the same noise: what it can gain is
accuracy, by the repairs in between. The idea of orthogonal subspaces is of Dolgova & Stich (2026, arXiv 2601.05134),
whose code gives each of ``k`` blocks a ``k``-th of the Renyi divergence, the same sum; they take noisy clipped steps
within a block. The proof is this one, of full clips between blocks, so that repairs of blocks still to come are free.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmu_jax import subsets
from fmu_jax.data import Data, as_data
from fmu_jax.noisy_finetuning.accounting import Guarantee, guarantee, least_noise, no_noise
from fmu_jax.noisy_finetuning.schedule import Schedule, check_counts
from fmu_jax.noisy_finetuning.steps import Finetuned, dtype_of, finetune, rounded_up
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.privacy import check_positive
from fmu_jax.removal.methods import remove


def finetune_blocks(
    objective: Objective,
    params: Params,
    data: Data,
    forget: Any,
    *,
    blocks: Sequence[str | Sequence[str]],
    start_clip: Scalar,
    noise: Scalar,
    key: Array,
    center: Params | None = None,
    repair_steps: int = 50,
    learning_rate: Scalar = 0.01,
    delta: Scalar = 1e-5,
) -> Finetuned:
    """Forgets rows with noise in one block after another; ``mu`` as if all had it at once.

    Args:
      objective: Objective for a model that is not linear.
      params: As for ``finetune``, as all that is not explained here.
      data: As there.
      forget: As there.
      blocks: Names of parameters (see ``subsets``), in the order in which they get noise; together all of them, none
        twice.
      start_clip: Radius of each block, > 0.
      noise: Standard deviation in each block, > 0.
      repair_steps: Number of steps of Adam on the blocks that follow, after each but the last.
      learning_rate: Adam's.
      key: As for ``finetune``.
      center: As there.
      delta: As there.

    Returns:
      The ``Finetuned``; its ``mu`` is that of all blocks together.

    Raises:
      ValueError: As ``finetune``; blocks that overlap or leave something out; rows that are not of labels 0 and 1,
        since the repairs between blocks follow the ``Objective``.
    """
    check_positive(start_clip=start_clip, noise=noise, learning_rate=learning_rate)
    check_counts(repair_steps=repair_steps)
    names = [[block] if isinstance(block, str) else list(block) for block in blocks]
    _check_cover(params, names)
    dtype, data = dtype_of(params), as_data(data)
    # Repairs are computed in the model's own precision, whatever that of the rows.
    rows = data._replace(x=data.x.astype(dtype), weight=data.weight.astype(dtype))
    plan = Schedule(start_clip=start_clip, noise=noise)
    promise = guarantee_of_blocks(plan, sizes=_sizes(params, names), dtype=dtype)
    epsilon = promise.epsilon(delta)
    middle = jax.tree.map(jnp.zeros_like, params) if center is None else center
    none_yet = params
    made: list[Finetuned] = []
    for index, block in enumerate(names):
        part, home = subsets.restrict(objective, none_yet, block), subsets.restrict(objective, middle, block)
        noised = finetune(
            part.objective, part.params, data, forget, schedule=plan, key=jax.random.fold_in(key, index),
            center=home.params, delta=delta,
        )  # fmt: skip
        none_yet = part.merge(noised.params)
        made.append(noised)
        rest = [name for later in names[index + 1 :] for name in later]
        if rest:
            none_yet = remove(
                objective, none_yet, rows, forget, method="finetune", only=rest, steps=repair_steps,
                learning_rate=learning_rate,
            ).params  # fmt: skip
    fine = jnp.all(jnp.isfinite(jnp.stack([noised.mu for noised in made])))
    return made[-1]._replace(
        params=none_yet,
        mu=jnp.where(fine, rounded_up(promise.mu, dtype), jnp.inf),
        failure=jnp.where(fine, rounded_up(promise.failure, dtype), 1),
        epsilon=jnp.where(fine, rounded_up(epsilon, dtype), jnp.inf),
    )


def guarantee_of_blocks(schedule: Schedule, *, sizes: Sequence[int], dtype: Any = jnp.float32) -> Guarantee:
    """The guarantee of noise in blocks of some sizes, each by the same schedule.

    Args:
      schedule: That of each block.
      sizes: Number of parameters of each block.
      dtype: As for ``guarantee``.

    Raises:
      ValueError: No block.
    """
    if not len(sizes):
        raise ValueError("`sizes` holds no block; give the number of parameters of each")
    each = [guarantee(schedule, size=size, dtype=dtype) for size in sizes]
    mu = math.sqrt(sum(found.mu**2 for found in each)) * (1 + 1e-15 * (len(each) + 4))
    failure = sum(found.failure for found in each) * (1 + 1e-15 * len(each))
    return Guarantee(mu, failure, each[0].route, mu, math.inf)


def noise_for_blocks(params: Params, blocks: Sequence[str | Sequence[str]], *, start_clip: Scalar, mu: Scalar) -> float:
    """The least noise in each block with which ``finetune_blocks`` keeps ``mu``.

    Args:
      params: As for ``finetune_blocks``, as ``blocks`` and ``start_clip``.
      blocks: As there.
      start_clip: As there.
      mu: Gaussian-DP parameter of all blocks together, > 0.

    Raises:
      ValueError: A number or blocks out of range, or no noise keeps ``mu`` in the parameters' dtype.

    >>> round(noise_for_blocks({"a": jnp.ones(3), "b": jnp.ones(2)}, ["a", "b"], start_clip=0.5, mu=1.0), 2)
    1.41
    """
    check_positive(start_clip=start_clip, mu=mu)
    names = [[block] if isinstance(block, str) else list(block) for block in blocks]
    _check_cover(params, names)
    dtype, sizes = dtype_of(params), _sizes(params, names)

    def suffices(noise: float) -> bool:
        return guarantee_of_blocks(Schedule(start_clip=start_clip, noise=noise), sizes=sizes, dtype=dtype).mu <= mu

    noise = least_noise(suffices, 2 * float(start_clip) * math.sqrt(len(names)) / float(mu))
    if math.isinf(noise):
        raise no_noise(mu, dtype)
    return noise


def _sizes(params: Params, names: list[list[str]]) -> list[int]:
    return [sum(leaf.size for leaf in subsets.select(params, block)[0].values()) for block in names]


def _check_cover(params: Params, names: list[list[str]]) -> None:
    taken = [set(subsets.select(params, block)[0]) for block in names]
    every = set(subsets.names(params))
    twice = [name for name in every if sum(name in block for block in taken) > 1]
    missing = every - set().union(*taken)
    if twice or missing:
        problem = f"{sorted(twice)} are in two" if twice else f"{sorted(missing)} are in none"
        raise ValueError(f"`blocks` must hold each parameter once: {problem}")
