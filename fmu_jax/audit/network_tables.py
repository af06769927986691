"""Whole audits of unlearning from networks as tables: the methods, certified or not, and a row for each."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmu_jax.audit.canaries import mislabelled, score_canaries
from fmu_jax.audit.networks import shadow_networks, twins
from fmu_jax.audit.one_run import one_run
from fmu_jax.audit.shadow import by_membership
from fmu_jax.audit.tables import attack_columns
from fmu_jax.data import Data
from fmu_jax.metrics import means
from fmu_jax.noisy_finetuning import Schedule, finetune, finetune_blocks, noise_for
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.removal import remove

Methods = Mapping[str, Mapping[str, Any] | Callable[..., Params]]
"""What is audited: options of ``remove``, or functions ``(params, data, forget, key) -> params``; by name."""
SOLVER = {"tolerance": 1e-3, "max_steps": 200}
NOISY = ("noisy", "noisy_repaired", "noisy_blocks", "fake")
"""The methods of ``noisy_methods``."""


def uncertified_methods(rows: Scalar) -> dict[str, dict[str, Any]]:
    """Options of ``remove`` for every method that runs on networks; nothing certifies any of them.

    Args:
      rows: Number of rows that each network is trained on; the step of ``descent`` is one of the mean objective.
    """
    newton = {"method": "fair_newton", **SOLVER}
    options: dict[str, dict[str, Any]] = {
        "fair_newton": newton,
        "gauss_newton": newton | {"gauss_newton": True},
        "last_layer": newton | {"only": "last"},
        "influence": {"method": "influence", **SOLVER},
        "descent": {"method": "descent", "steps": 50, "step_size": 0.5 / rows},
    }
    return options | {name: {"method": name, "steps": 50} for name in ("finetune", "gradient_ascent", "scrub")}


def noisy_methods(
    objective: Objective, center: Params, *, mu: float, dtype: Any, clip: float = 0.1, repair_steps: int = 50
) -> dict[str, Callable[..., Params]]:
    """Noisy fine-tuning around a center at one guarantee, and a fake of it that an audit must catch.

    Args:
      objective: Objective for a network whose variables are ``{"params": {layer: ...}}``.
      center: Variables that no forgotten row had a part in.
      mu: Gaussian-DP parameter of the guarantee, > 0.
      dtype: Dtype of the rows.
      clip: Radius of the ball to which the trained network is clipped, > 0.
      repair_steps: Number of steps of ``finetune``.

    Returns:
      ``noisy``: the published network, by noise alone. ``noisy_repaired``: the same after steps of ``finetune``.
      ``noisy_blocks``: noise in one layer after the other. ``fake``: a thousandth of the noise around a network that is
      not clipped.

    Raises:
      ValueError: A number out of range.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(center))
    honest = noise_for(Schedule(start_clip=clip, noise=1.0), mu=mu, size=size, dtype=dtype)
    fake = dataclasses.replace(honest, start_clip=1e4 * clip, noise=honest.noise / 1000)
    published = partial(_noisy, objective, center)
    return {
        "noisy": partial(published, schedule=honest, repair_steps=0),
        "noisy_repaired": partial(published, schedule=honest, repair_steps=repair_steps),
        "noisy_blocks": partial(_in_blocks, objective, center, schedule=honest),
        "fake": partial(published, schedule=fake, repair_steps=0),
    }


def _noisy(objective, center, params, rows, forget, key, *, schedule: Schedule, repair_steps: int) -> Params:
    found = finetune(objective, params, rows, forget, schedule=schedule, key=key, center=center)
    if repair_steps == 0:
        return found.params
    return remove(objective, found.params, rows, forget, method="finetune", steps=repair_steps).params


def _in_blocks(objective, center, params, rows, forget, key, *, schedule: Schedule) -> Params:
    layers = list(center["params"])
    return finetune_blocks(
        objective, params, rows, forget, blocks=layers, start_clip=schedule.start_clip / len(layers) ** 0.5,
        noise=schedule.noise, key=key, center=center,
    ).params  # fmt: skip


def network_table(
    objective: Objective,
    data: Data,
    test: Data,
    *,
    train: Callable[[Data, Array], Params],
    methods: Methods,
    planted: int,
    canaries: int,
    pairs: int,
    key: Array,
    claims: Mapping[str, float] | None = None,
    delta: float = 1e-5,
) -> list[dict[str, Any]]:
    """What attacks find of planted rows after each method, what canaries find in one network, accuracy and fairness.

    Args:
      objective: What the methods take the networks to minimise.
      data: Rows, half of which each pair of networks is trained on; all of them train the network with canaries.
      test: Rows for accuracy and fairness, of which the planted rows and the canaries are copies.
      train: As for ``shadow_networks``, as ``methods``.
      methods: Methods by name.
      planted: Number of planted rows that each network is trained on and unlearns.
      canaries: Number of mislabelled rows in the audit of one network.
      pairs: Number of pairs of networks.
      key: PRNG key of all draws.
      claims: By method, the Gaussian-DP parameter that it claims; no attack's true AUC for a row is then above
        ``Phi(mu / sqrt 2)``. What is found is an estimate from ``pairs`` pairs, and ``lira_auc_worst``, the largest
        one of all planted rows, is above that bound by chance where pairs are few.
      delta: Failure probability at which ``one_run`` bounds epsilon.

    Returns:
      Rows with ``method``, the columns of ``attack_columns``, ``margin_shift`` (how far margins are from those of the
      oracle), ``accuracy``, ``equalized_odds_mean``, ``converged`` (a share), the fields of ``one_run``
      (``one_run_*``), and of methods that claim something ``certified_auc`` and ``beyond``, 1 where an attack's mean
      AUC is larger.

    Raises:
      ValueError: As ``twins``, ``mislabelled``, ``shadow_networks`` and ``one_run``.
    """
    claims = claims or {}
    for_rows, for_models = jax.random.split(key)
    twin_rows = twins(test, planted, key=for_rows)
    shadow = shadow_networks(
        objective, data, twin_rows, test, train=train, methods=methods, key=for_models, pairs=pairs
    )
    wrong = mislabelled(test, canaries, key=jax.random.fold_in(for_rows, 1))
    scored = score_canaries(objective, data, wrong, train=train, methods=methods, key=jax.random.fold_in(for_models, 1))
    table = []
    for method, margins in shadow.margins.items():
        row: dict[str, Any] = attack_columns(margins, shadow.member, shadow.oracle)
        row |= {"margin_shift": jnp.abs(by_membership(margins, shadow.member)[0] - shadow.oracle).mean()}
        row |= means(shadow.metrics[method], ("accuracy", "equalized_odds_mean"))
        if method in claims:
            bound = float(jax.scipy.stats.norm.cdf(claims[method] / 2**0.5))
            row |= {"certified_auc": bound, "beyond": row["lira_auc"] > bound}
        if method in scored.scores:  # Retraining never saw a canary.
            once = one_run(scored.scores[method], scored.inside, delta=delta)
            row |= {f"one_run_{name}": value for name, value in once._asdict().items()}
        row |= {"converged": shadow.converged[method].astype(jnp.float32).mean()}
        table.append({"method": method} | {name: float(value) for name, value in row.items()})
    return table
