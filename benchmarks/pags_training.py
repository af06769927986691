"""Images per second of a training step, for each loss, beside PyTorch doing the same work.

    python -m benchmarks.pags_training                                                       # both models, float32
    python -m benchmarks.pags_training --models resnet18 --precisions tf32 bfloat16          # on a GPU
    python -m benchmarks.pags_training --models lenet --batch-size 8 --repeats 1             # a smoke run
    python -m benchmarks.pags_training --check --batch-size 32                               # do both compute the same?

Warm medians in milliseconds, compilation apart; images are on the device, nothing is augmented. ``unrolled`` is our
step as compiled for this backend with the steps of an attack written out, ``loop`` with them in a ``fori_loop``,
``plain`` is ``unrolled`` as XLA compiles it by default. ``torch`` is PyTorch's step on contiguous images,
``torch_nhwc`` with channels last. ``times_torch`` is the fastest of our two over the fastest of PyTorch's: below 1,
ours is faster. Shares of the peak are of the operations that the step asks for, by XLA's count.
"""

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import pags_cases
from benchmarks.pags_cases import Case
from pags_jax import attacks, losses, models, training
from pags_jax.images import to_float
from scripts.harness import cli
from scripts.harness.compiling import compiler_options

Loss = Literal[
    "cross_entropy", "gradient_norm", "smoothness", "randomized_smoothing", "adversarial_3", "adversarial_10"
]
OURS = ("unrolled", "loop")
DIFFERENCES = ("logits", "loss", "update", "running_mean", "running_var")
STRENGTHS = {"cross_entropy": 0.0, "gradient_norm": 0.01, "smoothness": 0.01, "randomized_smoothing": 0.1}
RADIUS = 0.5
RATE = 0.01


@dataclass(frozen=True)
class Config(pags_cases.Config):
    """Time training steps, ours and PyTorch's."""

    losses: tuple[Loss, ...] = (
        "cross_entropy", "gradient_norm", "smoothness", "randomized_smoothing", "adversarial_3", "adversarial_10",
    )  # fmt: skip
    """What to train with; adversarial with 3 or 10 steps of attack."""


def plan(config: Config) -> list[dict[str, Any]]:
    """The cases, checked."""
    return pags_cases.plan(config, config.losses)


def main(config: Config) -> None:
    """Times them, or checks that both compute the same."""
    pags_cases.main(config, "pags_training", config.losses, sides_of, ours=OURS, differences=DIFFERENCES)


def sides_of(case: Case) -> tuple[str, ...]:
    """What is timed; a loop where the loss has one."""
    return (*pags_cases.TORCH, *(OURS if case.work.startswith("adversarial") else OURS[:1]), "plain")


def task_of(case: Case, *, unroll: bool) -> training.Task:
    """What `pags_jax` trains in this case."""
    name, _, steps = case.work.partition("adversarial_")
    loss = partial(losses.adversarial, steps=int(steps), unroll=unroll) if steps else losses.LOSSES[name]
    return training.Task(pags_cases.model(case), loss, batch_size=case.batch_size)


def jax_side(case: Case, side: str) -> dict[str, Any]:
    """One formulation of ours."""
    if side == "plain" and not compiler_options():
        return {}
    task = task_of(case, unroll=side != "loop")
    options = {} if side == "plain" else compiler_options()
    step = jax.jit(training.step, static_argnames="task", donate_argnames="state", compiler_options=options)
    x, y = map(jnp.asarray, pags_cases.inputs(case))
    hyper = hyper_of(case)
    state = jax.jit(training.init, static_argnums=0)(task, x, key=jax.random.key(case.seed))

    def advance():
        nonlocal state
        state, metrics = step(task, state, x, y, hyper)
        return state, metrics

    (_, metrics), row = pags_cases.timed(side, advance, case.repeats)
    training.check_finite(metrics, case.repeats)
    if side == "unrolled":  # XLA counts the body of a loop once.
        row["gflop_per_image"] = pags_cases.gflop_per_image(step.lower(task, state, x, y, hyper), case)
    return row


def torch_side(case: Case, side: str) -> dict[str, Any]:
    """PyTorch's step, in one layout."""
    from benchmarks import torch_peer

    layout = {"channels_last": side == "torch_nhwc"}
    images, labels = pags_cases.inputs(case)
    x, y = torch_peer.images(images, **layout), torch_peer.labels(labels)
    model = torch_peer.create(case.model, classes=pags_cases.CLASSES, precision=case.precision, **layout)
    optimizer = torch_peer.sgd(model, RATE)

    def advance():
        metrics = torch_peer.step(model, optimizer, torch_peer.LOSSES[case.work], x, y, strength_of(case))
        torch_peer.wait()
        return metrics

    metrics, row = pags_cases.timed(side, advance, case.repeats)
    training.check_finite(training.Metrics(*(jnp.asarray(float(value)) for value in metrics)), case.repeats)
    return row | torch_peer.build()


def check_side(case: Case) -> dict[str, Any]:
    """Differences after one step from the same parameters and draws, over PyTorch's norms.

    Attacks enlarge rounding.
    """
    from benchmarks import torch_peer

    images, labels = pags_cases.inputs(case)
    task = task_of(case, unroll=True)
    state = jax.jit(training.init, static_argnums=0)(task, jnp.asarray(images), key=jax.random.key(case.seed))
    before = {"params": state.params, "batch_stats": state.statistics}
    model = torch_peer.create(case.model, classes=pags_cases.CLASSES, precision=case.precision)
    torch_peer.load(model, before)
    x, y = torch_peer.images(images), torch_peer.labels(labels)
    ours = models.evaluator(task.model, before)(to_float(images))
    model.eval()
    theirs = model(x.float() / 255).detach().cpu().numpy()
    model.train()

    draw = None if (given := _draw(case, task, state, images, labels)) is None else torch_peer.images(given)
    options = compiler_options()
    step = jax.jit(training.step, static_argnames="task", compiler_options=options)
    after, metrics = step(task, state, jnp.asarray(images), jnp.asarray(labels), hyper_of(case))
    optimizer = torch_peer.sgd(model, RATE)
    loss, *_ = torch_peer.step(model, optimizer, torch_peer.LOSSES[case.work], x, y, strength_of(case), draw)

    found = {
        "logits": pags_cases.difference(np.asarray(ours), theirs),
        "loss": abs(float(metrics.loss) / float(loss) - 1),
    }
    gathered: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"update": [], "running_mean": [], "running_var": []}
    starts = torch_peer.saved(model, before)
    ends = torch_peer.saved(model, {"params": after.params, "batch_stats": after.statistics})
    for (kind, name, start, _), (_, _, our_end, their_end) in zip(starts, ends, strict=True):
        key = "update" if kind == "params" else name.rpartition(".")[2]
        gathered[key].append(((our_end - start).ravel(), (their_end - start).ravel()))
    for key, pairs in gathered.items():
        if pairs:
            found[key] = pags_cases.difference(*(np.concatenate(values) for values in zip(*pairs, strict=True)))
    return found


def _draw(case: Case, task: training.Task, state: training.TrainState, images: np.ndarray, labels: np.ndarray) -> Any:
    """What our first step draws: noise, or the start of the attack."""
    for_steps, _ = jax.random.split(state.key)
    _, key = jax.random.split(jax.random.fold_in(for_steps, 0))
    if case.work in ("smoothness", "randomized_smoothing"):
        return np.array(jax.random.normal(key, images.shape, jnp.float32))
    if not case.work.startswith("adversarial"):
        return None
    apply_fn = models.evaluator(task.model, {"params": state.params, "batch_stats": state.statistics})
    x, y = to_float(images), jnp.asarray(labels)
    return np.array(attacks.pgd(apply_fn, x, y, key=key, eps_l2=RADIUS, steps=1, step_size=1e-30))


def strength_of(case: Case) -> float:
    """Any that keeps the loss finite: it costs no time."""
    return STRENGTHS.get(case.work, RADIUS)


def hyper_of(case: Case) -> training.Hyper:
    """Constant rate."""
    return training.Hyper(strength_of(case), RATE, jnp.full(2, 10**6, jnp.int32))


SIDES: dict[str, pags_cases.Side] = {
    **{side: partial(jax_side, side=side) for side in (*OURS, "plain")},
    **{side: partial(torch_side, side=side) for side in pags_cases.TORCH},
    "check": check_side,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        pags_cases.answer(SIDES, sys.argv[2:])
    else:
        sys.exit(cli.run(main, Config, plan=plan))
