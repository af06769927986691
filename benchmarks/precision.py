"""What a TPU's matrix unit costs in accuracy, emulated on this machine: products of bfloat16 parts, summed in float32.

    python -m benchmarks.precision

A TPU multiplies bfloat16 numbers. A float32 is the sum of three of them, ``a = a1 + a2 + a3``, and JAX's precisions are
how many of the nine products of parts are taken (Henry, Tang and Heinecke 2019):

    default  1   a1 b1
    high     3   + a1 b2 + a2 b1
    highest  6   + a1 b3 + a2 b2 + a3 b1

Every product and convolution of a traced function is replaced by these; everything else is float32 of this machine, and
so are the sums. ``asked`` takes of each product what the packages ask for. Certificates are of 20,000 synthetic rows,
``unsound`` where the certified residual is below that of the float64 gradient; gradients are those of fresh networks
against float64 ones, by the length of their difference.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fmu_jax
from benchmarks import measure
from pags_jax import gradients, models
from scripts.harness import cli

PASSES = {"default": 1, "high": 3, "highest": 6}
#: Pairs of parts, the largest first.
_PAIRS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
_PRODUCTS = ("dot_general", "conv_general_dilated", "convolve", "convolve_by_image", "convolve_by_kernel")


@dataclass(frozen=True)
class Config(cli.Common):
    """Measure what fewer passes lose."""

    out: Path = Path("benchmarks/results")
    rows: cli.Count = 20_000
    """Rows of the table that is certified."""
    images: cli.Count = 32
    """Images whose gradients are taken."""


def split(a: Any) -> list[Any]:
    """Three bfloat16 numbers whose sum is a float32, as float32."""
    parts = []
    for _ in range(3):
        # Not a conversion there and back, which XLA would leave out.
        parts.append(jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=7))
        a = a - parts[-1]
    return parts


def emulated(function: Callable[..., Any], precision: str) -> Callable[..., Any]:
    """The function with each float32 product taken in the passes of a precision, or in what it asks for (``asked``)."""

    def run(*args):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), precision)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return run


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], precision: str) -> list[Any]:
    known: dict[Any, Any] = {}

    def read(var):
        return var.val if hasattr(var, "val") else known[var]

    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        values = [read(var) for var in eqn.invars]
        known.update(zip(eqn.outvars, _equation(eqn, values, precision), strict=True))
    return [read(var) for var in jaxpr.outvars]


def _equation(eqn: Any, values: list[Any], precision: str) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params

    def inner(closed):
        return lambda *args: _evaluate(closed.jaxpr, closed.consts, args, precision)

    if name in _PRODUCTS and all(value.dtype == jnp.float32 for value in values):
        return [_product(eqn, values, precision)]
    if name in ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"):
        closed = next(params[key] for key in ("jaxpr", "call_jaxpr") if key in params)
        return inner(closed)(*values)
    if name in ("remat", "remat2", "checkpoint"):
        return _evaluate(params["jaxpr"], (), values, precision)
    if name == "custom_linear_solve":
        sizes, end = params["const_lengths"], 0
        parts = {}
        for key in ("matvec", "vecmat", "solve", "transpose_solve"):
            begin, end = end, end + getattr(sizes, key)
            parts[key] = values[begin:end]
        return inner(params["jaxprs"].solve)(*parts["solve"], *values[end:])
    if name == "scan":
        consts, carried = params["num_consts"], params["num_carry"]

        def body(carry, x):
            out = inner(params["jaxpr"])(*values[:consts], *carry, *x)
            return out[:carried], out[carried:]

        start, xs = values[consts : consts + carried], values[consts + carried :]
        carry, ys = jax.lax.scan(body, start, xs, length=params["length"], reverse=params["reverse"])
        return [*carry, *ys]
    if name == "while":
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        return jax.lax.while_loop(
            lambda carry: inner(params["cond_jaxpr"])(*values[:first], *carry)[0],
            lambda carry: inner(params["body_jaxpr"])(*values[first:second], *carry),
            values[second:],
        )
    if name == "cond":
        index, *operands = values
        return jax.lax.switch(index, [inner(branch) for branch in params["branches"]], *operands)
    out = eqn.primitive.bind(*values, **params)
    return out if eqn.primitive.multiple_results else [out]


def _product(eqn: Any, values: list[Any], precision: str) -> Any:
    if precision == "asked":
        given = eqn.params["precision"]
        given = given[0] if isinstance(given, tuple) else given
        precision = "default" if given is None else str(given).rsplit(".", 1)[-1].lower()
        precision = {"float32": "highest", "bfloat16_3x": "high"}.get(precision, precision)
    if precision == "exact":
        return eqn.primitive.bind(*values, **eqn.params)
    a, b = map(split, values)
    # The smallest first.
    terms = [eqn.primitive.bind(a[i], b[j], **eqn.params) for i, j in reversed(_PAIRS[: PASSES[precision]])]
    return sum(terms[1:], terms[0])


def certificates(config: Config) -> list[dict[str, Any]]:
    """A row for each precision of the removal and its certificate."""
    split_ = fmu_jax.datasets.synthetic(config.rows, 16, seed=config.seed).train
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype.kind == "f" else leaf, split_)
    data = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype.kind == "f" else leaf, split_)
    objective = fmu_jax.Objective(l2=1e-3, fairness=1.0)
    forget = jnp.arange(len(data.y)) < 100
    noise = fmu_jax.sample_noise(data.x[0], key=jax.random.key(config.seed), sigma=1.0)

    def pipeline(data, noise):
        params = fmu_jax.fit(objective, data, noise=noise, tolerance=1e-4, max_steps=20, throw=False).params
        removal = fmu_jax.remove(objective, params, data, forget, noise=noise, throw=False)
        certificate = fmu_jax.certify(objective, params, removal, sigma=1.0, delta=1e-5, noise=noise)
        return removal.params, removal.data.weight, certificate

    found = []
    for precision in ("exact", "highest", "high", "default", "asked"):
        params, weight, certificate = jax.jit(emulated(pipeline, precision))(data, noise)
        remaining = exact._replace(weight=weight.astype(jnp.float64), x=data.x.astype(jnp.float64))
        grad = fmu_jax.objective.gradient(objective, params.astype(jnp.float64), remaining, noise.astype(jnp.float64))
        true = float(jnp.linalg.norm(grad))
        certified = float(certificate.residual_norm)
        found.append(
            {"what": "certificate", "precision": precision, "error": true, "certified": certified,
             "margin": float(certificate.rounding_margin), "unsound": bool(certified < true)}
        )  # fmt: skip
    return found


def input_gradients(config: Config, name: str, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each precision of a fresh network's input gradients."""
    x = jax.random.uniform(jax.random.key(config.seed), (config.images, *shape), jnp.float32)
    model = models.create(name, classes=10)
    variables = models.init(model, x, key=jax.random.key(config.seed))

    def ours(variables, x):
        return gradients.input_gradients(models.evaluator(model, variables), x, target="logit_sum")

    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (variables, x))
    exact = np.asarray(jax.jit(ours)(*wide)).reshape(len(x), -1)
    found = []
    for precision in ("exact", "highest", "high", "default", "asked"):
        mine = np.asarray(jax.jit(emulated(ours, precision))(variables, x), np.float64).reshape(len(x), -1)
        off = np.linalg.norm(mine - exact, axis=1) / np.linalg.norm(exact, axis=1)
        found.append({"what": f"input gradients {name}", "precision": precision, "error": float(np.median(off)),
                      "largest_error": float(off.max())})  # fmt: skip
    return found


def main(config: Config) -> None:
    """All rows, printed and written."""
    with jax.enable_x64(True):
        table = certificates(config) + input_gradients(config, "lenet", (28, 28, 1))
        table += input_gradients(config, "resnet18", (32, 32, 3))
    columns = ("what", "precision", "error", "largest_error", "certified", "margin", "unsound")
    measure.publish("precision", table, columns, command=measure.command("benchmarks.precision"), out=config.out)


if __name__ == "__main__":
    sys.exit(cli.run(main, Config))
