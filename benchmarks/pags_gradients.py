"""Images per second of input gradients, for each target, beside PyTorch doing the same work.

    python -m benchmarks.pags_gradients                                                      # both models, float32
    python -m benchmarks.pags_gradients --models resnet18 --precisions tf32 bfloat16         # on a GPU
    python -m benchmarks.pags_gradients --models lenet --batch-size 8 --repeats 1            # a smoke run
    python -m benchmarks.pags_gradients --check --batch-size 32                              # do both compute the same?

Models in evaluation; warm medians in milliseconds, compilation apart. ``jax`` is `input_gradients` as compiled for
this backend, ``plain`` as XLA compiles it by default. ``torch`` and ``torch_nhwc`` (channels last) are PyTorch's with
weights frozen, ``torch_backward`` computes the weights' gradients too and drops them, as the paper's code does.
``times_torch`` is ``jax`` over the fastest with weights frozen: below 1, ours is faster. Shares of the peak are of the
operations that the gradients ask for, by XLA's count.
"""

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import pags_cases
from benchmarks.pags_cases import Case
from pags_jax import models
from pags_jax.gradients import Target, input_gradients
from pags_jax.images import to_float
from scripts.harness import cli
from scripts.harness.compiling import compiler_options

SIDES_OF = (*pags_cases.TORCH, "jax", "plain", "torch_backward")


@dataclass(frozen=True)
class Config(pags_cases.Config):
    """Time input gradients, ours and PyTorch's."""

    targets: tuple[Target, ...] = ("logit_sum", "logit", "log_prob", "loss")
    """What to differentiate."""


def plan(config: Config) -> list[dict[str, Any]]:
    """The cases, checked."""
    return pags_cases.plan(config, config.targets)


def main(config: Config) -> None:
    """Times them, or checks that both compute the same."""
    sides = {"ours": ("jax",), "differences": ("gradients",)}
    pags_cases.main(config, "pags_gradients", config.targets, lambda case: SIDES_OF, **sides)


def jax_side(case: Case, side: str) -> dict[str, Any]:
    """Ours, compiled for the backend or as XLA does by default."""
    options = {} if side == "plain" else compiler_options()
    if side == "plain" and not compiler_options():
        return {}
    model = pags_cases.model(case)
    images, labels = map(jnp.asarray, pags_cases.inputs(case))
    variables = jax.jit(models.init, static_argnums=0)(model, images, key=jax.random.key(case.seed))
    gradients = jax.jit(partial(gradients_of, model, case.work), compiler_options=options)
    _, row = pags_cases.timed(side, lambda: gradients(variables, images, labels), case.repeats)
    if side == "jax":
        row["gflop_per_image"] = pags_cases.gflop_per_image(gradients.lower(variables, images, labels), case)
    return row


def gradients_of(model: Any, target: Any, variables: Any, images: Any, labels: Any) -> jax.Array:
    """Input gradients of uint8 images."""
    return input_gradients(models.evaluator(model, variables), to_float(images), labels, target=target)


def torch_side(case: Case, side: str) -> dict[str, Any]:
    """PyTorch's, in one layout."""
    from benchmarks import torch_peer

    layout = {"channels_last": side == "torch_nhwc"}
    backward = side == "torch_backward"
    images, labels = pags_cases.inputs(case)
    x, y = torch_peer.images(images, **layout), torch_peer.labels(labels)
    model = torch_peer.create(case.model, classes=pags_cases.CLASSES, precision=case.precision, **layout)
    model.eval().requires_grad_(backward)

    def differentiate():
        result = torch_peer.input_gradients(model, x, y, case.work, backward=backward)
        torch_peer.wait()
        return result

    _, row = pags_cases.timed(side, differentiate, case.repeats)
    return row | torch_peer.build()


def check_side(case: Case) -> dict[str, Any]:
    """Difference of the gradients from the same parameters, over the norm of PyTorch's."""
    from benchmarks import torch_peer

    model = pags_cases.model(case)
    images, labels = pags_cases.inputs(case)
    variables = jax.jit(models.init, static_argnums=0)(model, jnp.asarray(images), key=jax.random.key(case.seed))
    gradients = jax.jit(partial(gradients_of, model, case.work), compiler_options=compiler_options())
    ours = np.asarray(gradients(variables, jnp.asarray(images), jnp.asarray(labels)))
    peer = torch_peer.create(case.model, classes=pags_cases.CLASSES, precision=case.precision)
    torch_peer.load(peer, variables)
    x, y = torch_peer.images(images), torch_peer.labels(labels)
    theirs = torch_peer.input_gradients(peer.eval(), x, y, case.work)
    return {"gradients": pags_cases.difference(ours, theirs.permute(0, 2, 3, 1).cpu().numpy())}


SIDES: dict[str, pags_cases.Side] = {
    **{side: partial(jax_side, side=side) for side in ("jax", "plain")},
    **{side: partial(torch_side, side=side) for side in (*pags_cases.TORCH, "torch_backward")},
    "check": check_side,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        pags_cases.answer(SIDES, sys.argv[2:])
    else:
        sys.exit(cli.run(main, Config, plan=plan))
