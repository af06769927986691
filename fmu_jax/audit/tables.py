"""Whole audits of an objective as tables: a row for each removal method, of plain numbers."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from fmu_jax.audit.draws import AUDITED, PERTURBED, draw_models
from fmu_jax.audit.epsilon import empirical_epsilon, largest_bound
from fmu_jax.audit.likelihood_ratio import lira
from fmu_jax.audit.loss_threshold import membership
from fmu_jax.audit.margin_divergence import klom
from fmu_jax.audit.shadow import by_membership, plant, shadow_models
from fmu_jax.data import Data
from fmu_jax.objective import Objective
from fmu_jax.privacy import certified_epsilon


def epsilon_table(
    objective: Objective, train: Data, forget: Any, *, sigma: float, delta: float, models: int, key: Array
) -> list[dict[str, Any]]:
    """The empirical epsilon of each method, a lower bound at 95 %, beside the largest that its residuals certify.

    Args:
      objective: Objective of the training.
      train: The training rows.
      forget: Rows to remove, as for ``remove``.
      sigma: Standard deviation of the objective perturbation.
      delta: Failure probability.
      models: Draws of the perturbation.
      key: PRNG key of all draws.

    Returns:
      Rows with ``method``, ``residual_norm``, ``certified_epsilon``, ``empirical_epsilon``, what each test shows
      (``empirical_TEST``), and ``largest_bound``, the most that so many models could show.
    """
    for_draws, for_split = jax.random.split(key)
    draws = draw_models(objective, train, forget, key=for_draws, sigma=sigma, models=models, methods=PERTURBED)
    ceiling, table = float(largest_bound(models, delta=delta)), []
    for method in PERTURBED:
        bound = empirical_epsilon(draws.unlearned[method], draws.retrained, delta=delta, key=for_split)
        residual = float(draws.residual[method].max())
        row = {"method": method, "residual_norm": residual}
        row |= {"certified_epsilon": float(certified_epsilon(residual, sigma, delta))}
        row |= {"empirical_epsilon": float(bound.epsilon), "largest_bound": ceiling}
        table.append(row | {f"empirical_{name}": float(value) for name, value in bound.by_test.items()})
    return table


def attack_table(
    objective: Objective, train: Data, *, planted: int, sigma: float, pairs: int, shards: int, key: Array
) -> list[dict[str, Any]]:
    """What three attacks find of planted rows after each method: U-LiRA, KLoM and a loss threshold.

    Args:
      objective: Objective of the training.
      train: The training rows.
      planted: Rows that each shadow model is trained on and unlearns.
      sigma: Standard deviation of the objective perturbation.
      pairs: Number of pairs of shadow models.
      shards: Number of shards of the sharded baseline.
      key: PRNG key of all draws.

    Returns:
      Rows with ``method`` and the columns of ``attack_columns`` and of the loss threshold (``membership_*``).
    """
    for_rows, for_models = jax.random.split(key)
    rows = plant(train, planted, key=for_rows)
    shadow = shadow_models(objective, train, rows, key=for_models, sigma=sigma, pairs=pairs, shards=shards)
    table = []
    for method in AUDITED:
        margins = shadow.margins[method]
        models = (-1, margins.shape[-1])
        threshold = membership(jax.nn.softplus(-margins).reshape(models), shadow.member.reshape(models))
        row = {"method": method} | attack_columns(margins, shadow.member, shadow.oracle[method])
        row["membership_auc"] = float(threshold.auc.mean())
        table.append(row | {"membership_advantage": float(threshold.advantage.mean())})
    return table


def attack_columns(
    margins: Float[Array, "pairs 2 rows"], member: Bool[Array, "pairs 2 rows"], oracle: Float[Array, "oracles rows"]
) -> dict[str, float]:
    """What U-LiRA and KLoM find in the margins of shadow models on planted rows.

    Args:
      margins: Margins of each pair's two models, after the removal.
      member: Which of the two was trained on which rows; of each pair one was.
      oracle: Margins of the retrained models.

    Returns:
      ``lira_auc``, ``lira_auc_worst`` (the largest of the rows' estimates, which is above their true AUCs by chance
      where pairs are few), ``lira_advantage``, ``lira_true_positive_rate``, ``klom`` (mean over rows) and
      ``klom_quantile_95``.

    Raises:
      ValueError: As ``lira`` and ``klom``.
    """
    unlearned, outside = by_membership(margins, member)
    likelihood, divergence = lira(unlearned, outside, paired=True), np.asarray(klom(unlearned, oracle))
    row = {"lira_auc": likelihood.auc.mean(), "lira_auc_worst": likelihood.auc.max()}
    row |= {"lira_advantage": likelihood.advantage.mean()}
    row |= {"lira_true_positive_rate": likelihood.true_positive_rate}
    row |= {"klom": divergence.mean(), "klom_quantile_95": np.quantile(divergence, 0.95)}
    return {name: float(value) for name, value in row.items()}
