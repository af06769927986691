"""What fewer bits in matrix products cost, emulated on this machine: certificates, gradients, measures.

    python -m benchmarks.precision

A TPU multiplies bfloat16 numbers, a GPU float32 ones rounded to TensorFloat-32 unless it is told otherwise. A float32
is the sum of three bfloat16 numbers, ``a = a1 + a2 + a3``, and JAX's precisions on a TPU are how many of the nine
products of parts are taken (Henry, Tang and Heinecke 2019):

    default  1   a1 b1
    high     3   + a1 b2 + a2 b1
    highest  6   + a1 b3 + a2 b2 + a3 b1
    tf32     1   of 10 bits instead of 7: the default of GPUs, whose highest is float32

Every product and convolution of a traced function is replaced by these; everything else is float32 of this machine,
and so are the sums. ``asked`` takes of each product what the packages ask for, on a TPU. A certificate is *unsound*
where its residual is below that of the float64 gradient (``missed``: how many times that is as large, at most).
Networks are those published for CIFAR-10, and images are drawn by their denoiser; errors are lengths of differences
from float64, over the length there, median and largest of the images.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fmu_jax
from benchmarks import measure
from pags_jax import bases, gradients, manifold, models, robustness, scores, shares
from scripts.harness import cli

PASSES = {"default": 1, "high": 3, "highest": 6}
PRECISIONS = ("float32", *PASSES, "tf32", "asked")
#: Pairs of parts, the largest first.
_PAIRS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
_PRODUCTS = ("dot_general", "conv_general_dilated", "convolve", "convolve_by_image", "convolve_by_kernel")
#: Compiling takes most of the time, and computing little.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True)
class Config(cli.Common):
    """Measure what fewer bits lose."""

    out: Path = Path("benchmarks/results")
    rows: tuple[int, ...] = (500, 20_000)
    """Rows of the tables that are certified."""
    tables: cli.Count = 20
    """Tables of each size."""
    images: cli.Count = 8
    """Images whose gradients are taken."""
    models: Path = Path("benchmarks/results/cifar10")
    """Folder of the networks."""


def emulated(function: Callable[..., Any], precision: str) -> Callable[..., Any]:
    """The function with each float32 product taken as by one of ``PRECISIONS``."""

    def run(*args):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), precision)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return run


def split(a: Any) -> list[Any]:
    """Three bfloat16 numbers whose sum is a float32, as float32."""
    parts = []
    for _ in range(3):
        # Not a conversion there and back, which XLA would leave out.
        parts.append(jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=7))
        a = a - parts[-1]
    return parts


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
    if name in ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vmap_call"):
        closed = next(params[key] for key in ("jaxpr", "call_jaxpr", "call") if key in params)
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
        if "ft_in" in params:  # JAX 0.12 keeps what goes in as trees.
            consts, carried, _ = map(len, params["ft_in"].unpack())
        else:
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
    return list(out) if eqn.primitive.multiple_results else [out]


def _product(eqn: Any, values: list[Any], precision: str) -> Any:
    if precision == "asked":
        given = eqn.params["precision"]
        given = given[0] if isinstance(given, tuple) else given
        precision = "default" if given is None else str(given).rsplit(".", 1)[-1].lower()
        precision = {"float32": "highest", "bfloat16_3x": "high"}.get(precision, precision)
    if precision == "float32":
        return eqn.primitive.bind(*values, **eqn.params)
    if precision == "tf32":
        rounded = [jax.lax.reduce_precision(value, exponent_bits=8, mantissa_bits=10) for value in values]
        return eqn.primitive.bind(*rounded, **eqn.params)
    a, b = map(split, values)
    # The smallest first.
    terms = [eqn.primitive.bind(a[i], b[j], **eqn.params) for i, j in reversed(_PAIRS[: PASSES[precision]])]
    return sum(terms[1:], terms[0])


def as_type(tree: Any, dtype: Any) -> Any:
    """The tree with its floating leaves of another type."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def certified(objective: Any, data: Any, noise: Any) -> tuple[Any, Any, Any]:
    """A removal of every twentieth row: its parameters, the rows' weights after it, and its certificate."""
    forget = jnp.arange(len(data.y)) % 20 == 0
    params = fmu_jax.fit(objective, data, noise=noise, tolerance=1e-4, max_steps=20, throw=False).params
    removal = fmu_jax.remove(objective, params, data, forget, noise=noise, throw=False)
    certificate = fmu_jax.certify(objective, params, removal, sigma=1.0, delta=1e-5, noise=noise)
    return removal.params, removal.data.weight, certificate


def true_residual(objective: Any, params: Any, data: Any, weight: Any, noise: Any) -> float:
    """The length of the float64 gradient there."""
    with jax.enable_x64(True):
        params, data, weight, noise = as_type((params, data, weight, noise), jnp.float64)
        return float(_length(objective, params, data._replace(weight=weight), noise))


@jax.jit
def _length(objective: Any, params: Any, data: Any, noise: Any) -> Any:
    return jnp.linalg.norm(fmu_jax.objective.gradient(objective, params, data, noise))


def certificates(config: Config, size: int) -> list[dict[str, Any]]:
    """A row for each precision of a removal and its certificate, over tables."""
    objective = fmu_jax.Objective(l2=1e-3, fairness=1.0)
    tables = []
    for seed in range(config.seed, config.seed + config.tables):
        data = as_type(fmu_jax.datasets.synthetic(size, 16, seed=seed).train, jnp.float32)
        tables.append((data, fmu_jax.sample_noise(data.x[0], key=jax.random.key(seed), sigma=1.0)))
    found = []
    for precision in PRECISIONS:
        run = jax.jit(emulated(partial(certified, objective), precision), compiler_options=_QUICK)
        told = []
        for data, noise in tables:
            params, weight, certificate = run(data, noise)
            true = true_residual(objective, params, data, weight, noise)
            told.append((true, float(certificate.residual_norm), float(certificate.rounding_margin)))
        true, claimed, margin = np.array(told).T
        found.append({
            "what": f"residual, {size:,} rows", "precision": precision, "error": float(np.median(true)),
            "largest": float(true.max()), "certified": float(np.median(claimed)), "margin": float(np.median(margin)),
            "unsound": int((claimed < true).sum()), "of": len(true), "missed": float(np.max(true / claimed)),
        })  # fmt: skip
        print(found[-1], flush=True)
    return found


def measures(config: Config) -> list[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Name, function and arguments of what is measured of networks."""
    classifier, variables = models.load(config.models / "undefended.safetensors", kind="classifier")[:2]
    classifier = classifier.clone(dtype=None)  # That of images and parameters.
    denoiser, weights = models.load(config.models / "denoiser.safetensors", kind="denoiser")[:2]
    auto, codes = models.load(config.models / "autoencoder.safetensors", kind="autoencoder")[:2]
    key, shape = jax.random.key(config.seed), (config.images, 32, 32, 3)
    y = jnp.arange(config.images, dtype=jnp.int32) % 10
    step = jax.jit(scores.heun_step, compiler_options=_QUICK)
    denoise = scores.denoiser(denoiser, weights, labels=y)
    x = scores.sample(denoise, jax.random.normal(key, shape, jnp.float32), scores.noise_schedule(9), step=step)
    x = jnp.clip((x + 1) / 2, 0, 1)
    z = jax.jit(models.encoder(auto, codes))(x)
    noise = jax.random.normal(key, (4, *x.shape), jnp.float32)
    basis = jax.jit(lambda z: manifold.tangent_basis(models.decoder(auto, codes), z, chunk_size=1))(z)

    def of(function):
        return lambda variables, x, *rest: function(models.evaluator(classifier, variables), x, *rest)

    def gradient(f, x):
        return gradients.input_gradients(f, x, y, target="logit")

    def share(f, x, basis, noise):
        return 1 - shares.off_manifold_share_by_noise(lambda x: f(x)[:, 0], x, basis, sigma=1e-3, noise=noise)

    def changes(f, x, basis, noise):
        return jnp.stack(robustness.manifold_robustness(f, x, basis, eps_l2=0.5, noise=noise), 1)

    def bayes(weights, x, sigma):
        conditional = scores.denoiser(denoiser, weights, labels=y)
        return scores.bayes_gradient(conditional, scores.denoiser(denoiser, weights), x, sigma_pm1=sigma)

    def projected(codes, z, noise):
        basis = manifold.tangent_basis(models.decoder(auto, codes), z, chunk_size=1)
        return bases.project(basis, noise[0])

    return [
        ("input gradients", of(gradient), (variables, x)),
        ("share on the manifold, by noise of 0.001", of(share), (variables, x, basis, noise)),
        ("changes by steps on and off the manifold", of(changes), (variables, x, basis, noise)),
        ("Bayes gradient, sigma 0.5", bayes, (weights, x, jnp.asarray(0.5, jnp.float32))),
        ("projection on tangent spaces", projected, (codes, z, noise)),
    ]


def losses(config: Config) -> list[dict[str, Any]]:
    """A row for each measure of networks and each precision."""
    found = []
    for what, function, arguments in measures(config):

        def values(given, precision, function=function):
            run = jax.jit(emulated(function, precision), compiler_options=_QUICK)
            return np.asarray(run(*given), np.float64).reshape(config.images, -1)

        exact = values(as_type(arguments, jnp.float64), "float32")
        for precision in PRECISIONS:
            off = np.linalg.norm(values(arguments, precision) - exact, axis=1) / np.linalg.norm(exact, axis=1)
            found.append({"what": what, "precision": precision, "error": float(np.median(off)),
                          "largest": float(off.max())})  # fmt: skip
            print(found[-1], flush=True)
    return found


def main(config: Config) -> None:
    """All rows, printed and written."""
    with jax.enable_x64(True):
        table = [row for size in config.rows for row in certificates(config, size)] + losses(config)
    columns = ("what", "precision", "error", "largest", "certified", "margin", "unsound", "of", "missed")
    measure.publish("precision", table, columns, command=measure.command("benchmarks.precision"), out=config.out)


if __name__ == "__main__":
    sys.exit(cli.run(main, Config))
