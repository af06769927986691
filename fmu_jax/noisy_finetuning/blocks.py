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

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmu_jax import subsets
from fmu_jax.data import Data, as_data
from fmu_jax.noisy_finetuning.schedule import Schedule
from fmu_jax.noisy_finetuning.steps import Finetuned, finetune
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.privacy import check_positive, gaussian_epsilon
from fmu_jax.releases.accounting import compose
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
      ValueError: As ``finetune``; blocks that overlap or leave something out.
    """
    check_positive(start_clip=start_clip, noise=noise, repair_steps=repair_steps, learning_rate=learning_rate)
    names = [[block] if isinstance(block, str) else list(block) for block in blocks]
    _check_cover(params, names)
    data = as_data(data)
    plan = Schedule(start_clip=start_clip, noise=noise)
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
                objective, none_yet, data, forget, method="finetune", only=rest, steps=repair_steps,
                learning_rate=learning_rate,
            ).params  # fmt: skip
    mu, failure = compose([noised.mu for noised in made]), jnp.stack([noised.failure for noised in made]).sum()
    epsilon = gaussian_epsilon(mu, 1.0, delta - failure)
    return made[-1]._replace(params=none_yet, mu=mu, failure=failure, epsilon=epsilon)


def _check_cover(params: Params, names: list[list[str]]) -> None:
    taken = [set(subsets.select(params, block)[0]) for block in names]
    every = set(subsets.names(params))
    twice = [name for name in every if sum(name in block for block in taken) > 1]
    missing = every - set().union(*taken)
    if twice or missing:
        problem = f"{sorted(twice)} are in two" if twice else f"{sorted(missing)} are in none"
        raise ValueError(f"`blocks` must hold each parameter once: {problem}")
