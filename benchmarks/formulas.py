"""Arithmetic that each kernel needs by its formula: products and convolutions, two for a multiplication and addition.

With n rows of d columns, a Gram matrix takes ``2 n d^2`` and a product of the rows and a vector ``2 n d``. Of a network
whose forward pass takes F, a derivative by the images takes 2 F (forward, and backward by the images) and one by the
parameters 3 F (by the kernels as well), without the little that a first layer saves. A penalty on an input gradient
takes 6 F: each of the products of its 2 F has two derivatives. So does a Hessian-vector product where the gradient is
known. As in `hlo.flops`, factorisations do not count, and a loop of unknown length counts once.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import hlo, kernels_fmu, kernels_pags
from benchmarks.kernels import Place

_GRAM, _PASS = (2.0 * kernels_fmu.ROWS * kernels_fmu.COLUMNS**power for power in (2, 1))
_SMALL_GRAM, _SMALL_PASS = (2.0 * 960_000 * kernels_fmu.COLUMNS**power for power in (2, 1))
_HEAD_GRAM, _HEAD_PASS = (2.0 * 960 * 52 * 513**power for power in (2, 1))
_IMAGES, _RANK, _PIXELS = kernels_pags.IMAGES, kernels_pags.RANK, 3072
_PROJECTION = 4.0 * _IMAGES * _RANK * _PIXELS


@cache
def forward(network: str) -> float:
    """F of a network of `kernels_pags` over a batch, or of the LeNet of `kernels_fmu` for one image."""
    if network == "lenet of rows":
        model, params, *_ = kernels_fmu.network(Place())
        row = jax.ShapeDtypeStruct((1, 197), jnp.float32)
        return hlo.flops(jax.make_jaxpr(lambda params, row: model.apply(params, row))(params, row))
    function, arguments = kernels_pags.FORWARD[network](Place())
    return hlo.flops(jax.make_jaxpr(function)(*arguments))


def _of(network: str, times: float, more: float = 0.0) -> Callable[[], float]:
    return lambda: times * forward(network) + more


def _of_rows(times: float, rows: int = 960 * 63) -> Callable[[], float]:
    return lambda: times * rows * forward("lenet of rows")


#: PGD takes 10 steps.
_LOSSES = {"cross_entropy": 3, "gradient_norm": 6, "smoothness": 2 * 3, "randomized_smoothing": 3}
_LOSSES |= {"adversarial": 10 * 2 + 3, "score_alignment": 6}
#: Maps of AlexNet's convolutions, for images of 64 x 64.
_SIDES = (15, 7, 3, 3, 3)

FORMULAS: dict[str, float | Callable[[], float]] = {
    "fit": _GRAM + 6 * _PASS,
    "remove fair_newton": _GRAM + 4 * _PASS,
    "remove influence": _GRAM + 4 * _PASS,
    "remove newton": _GRAM + 5 * _PASS,
    "remove projective": 2 * _GRAM + 5 * _PASS,
    "remove descent": _GRAM + 100 * _PASS,
    "retrained_region": 2 * _GRAM + 3 * _PASS,
    "certify": 3 * _GRAM + 10 * _PASS,
    "fairness_interval": 3 * _GRAM + 4 * _PASS,
    "distance and release": 2 * _GRAM + 3 * _PASS,
    "certify_descent": 3 * _GRAM + 100 * _PASS,
    "group_metrics": _PASS,
    "fit_thresholds": _PASS,
    "calibrate_noise": 4 * _SMALL_GRAM + 13 * _SMALL_PASS,  # One attempt: a fit, a removal and its region.
    "stream start": 2 * _GRAM + 3 * _PASS,
    "stream delete": 2 * 2.0 * 1000 * kernels_fmu.COLUMNS**2,
    "stream refresh": 3 * _GRAM + 9 * _PASS,
    "stream serve": 1000 * (3 * _GRAM + 9 * _PASS),  # As if every request asked for a refresh.
    "stream serve_releases": 1000 * (3 * _GRAM + 9 * _PASS),
    "moments": 2 * _GRAM + 2 * _PASS,
    "moments, 128 columns": 2 * 960 * 128 * 200 * 2.0 * (128**2 + 128),
    "fit, conjugate gradients": 9 * 2.0 * 960 * 1042 * 4096,
    "fit, five groups": _GRAM + 6 * _PASS,
    "fit_head": 10 * (_HEAD_GRAM + 6 * _HEAD_PASS),
    "remove and certify head": 10 * (4 * _HEAD_GRAM + 14 * _HEAD_PASS),
    "remove fair_newton, LeNet": _of_rows(3 + 3 + 6 * (64 + 2)),
    "remove scrub, LeNet": _of_rows(1 + 3 * 50),
    "extreme_eigenvalues, LeNet": _of_rows(3 + 6 * 64),
    "noisy finetune, LeNet": _of_rows(3 * 100, rows=1024),
    "train_adam, LeNet": _of_rows(3 * 100),
    # Of each model two fits, a removal, and two residuals.
    "draw_models": 1024 * 2.0 * 960 * 32 * (3 * 16**2 + 20 * 16),
    **{
        f"training step {network}, {loss}": _of(network, times)
        for network in ("lenet", "resnet18")
        for loss, times in _LOSSES.items()
    },
    "input_gradients lenet, loss": _of("lenet", 2),
    **{
        f"input_gradients resnet18, {target}": _of("resnet18", 2)
        for target in ("logit_sum", "logit", "log_prob", "loss")
    },
    "smoothed_gradients resnet18": _of("resnet18", 16 * 2),
    "integrated_gradients resnet18": _of("resnet18", 32 * 2),
    "pgd resnet18": _of("resnet18", 10 * 2),
    "apgd resnet18": _of("resnet18", (1 + 100) * 2),
    "apgd_targeted resnet18": _of("resnet18", 9 * (1 + 100) * 2),
    # Two attacks, the best point of each, and two verdicts.
    "robustly_correct resnet18": _of("resnet18", 1 + 2 * (20 * 2 + 2)),
    "tangent_basis": _of("decoder", 1 + 128, 2.0 * _IMAGES * _PIXELS * 128**2),
    "local_pca": 2.0 * _IMAGES * _PIXELS * 64**2,
    "nearest": 2.0 * _IMAGES * 50_000 * _PIXELS,
    "denoiser_basis": _of("unet", 2 + 4 * _RANK * 2),
    "manifold_robustness resnet18": _of("resnet18", 1 + 4 * 2, 4 * _PROJECTION),
    "relative_noise_robustness resnet18": _of("resnet18", 1 + 4),
    "off_manifold_share resnet18": _of("resnet18", 2, _PROJECTION),
    "off_manifold_share_by_noise resnet18": _of("resnet18", 4 * 2 * 2, 4 * _PROJECTION),
    "training step U-Net, denoising": _of("unet", 3),
    "score": _of("unet", 1),
    "bayes_gradient": _of("unet", 2),
    "heun_step": _of("unet", 2),
    "inpaint": _of("unet", 2 + 1),
    "lpips": 2 * 2.0 * _IMAGES * sum(
        side**2 * window**2 * into * out
        for side, (into, out, window) in zip(_SIDES, kernels_pags.ALEXNET, strict=True)
    ),
    "smoothing certify resnet18": _of("resnet18", 100 + 100_000),
    "gaussians fit": 10 * 2.0 * (_IMAGES * (_PIXELS + 192**2) + 192**3),
    "synthesize resnet18": _of("resnet18", 60 * 2 + 1),
    "counterfactual resnet18": _of("resnet18", 60 * 2 + 1),
}  # fmt: skip

#: Why a kernel's program has more than 1.5 times as much as its formula.
_PRODUCTS = "each product takes the gradient's own passes, the same in all products, anew"
WHY = {
    "fit, conjugate gradients": "the same products of rows and vector are traced twice and more; XLA merges them",
    "remove fair_newton, LeNet": _PRODUCTS,
    "extreme_eigenvalues, LeNet": _PRODUCTS,
}


def needed(name: str) -> float | None:
    """What a kernel needs; None where it has no products or no formula."""
    formula = FORMULAS.get(name)
    return formula() if callable(formula) else formula


def share(name: str, counted: float) -> dict[str, Any]:
    """The columns of a row: what is needed, and what is counted over it."""
    formula = needed(name)
    return {"formula_gflop": formula / 1e9, "of_formula": counted / formula} if formula else {}


def filled(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `compiled` with these columns, from what was counted when it was compiled."""
    kept = {key: value for key, value in row.items() if key not in ("formula_gflop", "of_formula")}
    return kept | (share(row["kernel"], 1e9 * row["program_gflop"]) if "program_gflop" in row else {})
