"""What a loss carries beside its value: the running statistics and the logits of a forward pass."""

import inspect
from collections.abc import Callable
from typing import Any


def carrying_aux(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss that takes ``has_aux``: itself, or for ``loss(apply_fn, x, y, key, strength)`` one made from it.

    ``training.step`` calls every loss in this way. The auxiliary value of one that is made is that of the clean images:
    they give the running statistics and the accuracy of the step, whatever images the loss itself looks at.

    >>> import jax.numpy as jnp
    >>> from pags_jax.losses import cross_entropy
    >>> def toy(apply_fn, x, y, key, strength):
    ...     return cross_entropy(apply_fn, x, y) + strength * jnp.mean(apply_fn(x) ** 2)
    >>> model = lambda x: (x, "statistics")
    >>> value, aux = carrying_aux(toy)(model, jnp.ones((4, 10)), jnp.arange(4), None, 2.0, has_aux=True)
    >>> float(value.round(3)), aux
    (4.303, 'statistics')
    """
    parameters = inspect.signature(loss).parameters.values()
    if any(parameter.name == "has_aux" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return loss

    def carrying(apply_fn, x, y, key, strength, *, has_aux: bool = False):
        if not has_aux:
            return loss(apply_fn, x, y, key, strength)
        return loss(lambda x: apply_fn(x)[0], x, y, key, strength), apply_fn(x)[1]

    return carrying
