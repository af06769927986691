"""Functions that are compiled once for the whole process."""

import functools
import operator
import threading
from collections.abc import Callable
from typing import Any

from scripts.harness.lazy import jax, jnp

#: On CPUs XLA hands work to a library (YNNPACK) whose convolutions are slower than its own code (jaxlib 0.10.2: 1.8
#: times, a step of ResNet-18, see `python -m benchmarks.pags_training`). This leaves it products, each by itself: with
#: their neighbours it would take convolutions as well.
_OWN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for ``jax.jit(..., compiler_options=...)`` on the default backend; none where they do not apply."""
    if jax.default_backend() != "cpu":
        return {}
    try:  # The option is experimental: another version of XLA may not know it.
        jax.jit(lambda x: x, compiler_options=_OWN_CONVOLUTIONS)(jnp.zeros(()))
    except (RuntimeError, ValueError):
        return {}
    return dict(_OWN_CONVOLUTIONS)


def share_context() -> None:
    """Make JAX lower the programs to come in one MLIR context.

    By itself it makes a context for each, and MLIR looks through all that live whenever it makes one, so that lowering
    slows with every program that lives (JAX 0.10.2). The context keeps the constants of its programs until this is
    called again. Each thread has its own, and so has a program that is lowered within another's lowering.
    """
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir

    make = getattr(mlir, "make_ir_context", None)  # Not a public name: another version may have another way.
    if make is None:
        return
    make, own = getattr(make, "__wrapped__", make), threading.local()

    @functools.wraps(make)
    def shared() -> Any:
        if ir.Context.current is not None:
            return make()
        if not hasattr(own, "context"):
            own.context = make()
        return own.context

    mlir.make_ir_context = shared


@functools.cache
def jitted(function: Callable[..., Any], *static: str, images: bool = True) -> Callable[..., Any]:
    """A function under one ``jit`` for the whole process, with the backend's options; ``static`` names arguments.

    Models are arguments of such a function (`pags_jax.models.evaluator` makes pytrees of them), so that all models of
    an architecture share its program. Data are arguments too: what a function closes over becomes a constant of its
    program, which XLA would fold, for minutes where it is large.

    >>> jitted(pow)(2.0, 3.0).item()
    8.0
    """
    return jax.jit(function, static_argnames=static, compiler_options=compiler_options() if images else None)


def applied(function: Any, *given: Any) -> Any:
    """A function that is a pytree, such as a model, of arrays, compiled."""
    return jitted(operator.call)(function, *given)
