"""What to tell the compiler where its own choice is slow."""

import functools

import jax
import jax.numpy as jnp

#: On CPUs XLA hands work to a library (YNNPACK) whose convolutions are slower than its own code (jaxlib 0.10.2: 1.8
#: times, a step of ResNet-18, see `python -m benchmarks.pags_training`). This leaves it products, each by itself: with
#: their neighbours it would take convolutions as well.
_OWN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for ``jax.jit(..., compiler_options=...)`` on the default backend; none where they do not apply.

    >>> isinstance(compiler_options(), dict)
    True
    """
    if jax.default_backend() != "cpu":
        return {}
    try:  # The option is experimental: another version of XLA may not know it.
        jax.jit(lambda x: x, compiler_options=_OWN_CONVOLUTIONS)(jnp.zeros(()))
    except (RuntimeError, ValueError):
        return {}
    return dict(_OWN_CONVOLUTIONS)
