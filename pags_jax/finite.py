"""Stops training that is no longer finite, with an error that names the step."""

from typing import Any

import jax
import jax.numpy as jnp


def check_finite(metrics: Any, first_step: int) -> None:
    """Raises FloatingPointError naming the first step and metric that is not finite; row 0 is ``first_step``.

    ``metrics`` are ``training.Metrics``, or another NamedTuple of numbers or columns.
    """
    table = jnp.stack([jnp.atleast_1d(column) for column in metrics], axis=1)
    bad = ~jnp.isfinite(table)
    if bool(bad.any()):
        row, column = divmod(int(jnp.argmax(bad)), table.shape[1])
        raise FloatingPointError(
            f"{metrics._fields[column]} is {float(table[row, column])} at step {first_step + row}; "
            f"{_advice(first_step + row)}"
        )


def check_all_finite(state: Any) -> None:
    """Raises FloatingPointError naming what is not finite in a state; metrics show it for every update but the last."""
    for name, tree in (("parameters", state.params), ("running statistics", state.statistics)):
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree)):
            raise FloatingPointError(
                f"{name} are not finite after step {int(state.step) - 1}; use a smaller learning rate or strength"
            )


def _advice(step: int) -> str:
    """What to do about metrics that are not finite: those of step 0 come before any update."""
    if step:
        return "use a smaller learning rate or strength, if all labels are classes of the model"
    return (
        "no update was done yet, so the learning rate has no part in it: look for labels that are no classes of the "
        "model, images that are not finite or too small for it, or a strength that overflows"
    )
