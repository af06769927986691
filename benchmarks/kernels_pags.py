"""Kernels of ``pags_jax``: 1,024 images in a batch, LeNet on 28 x 28 x 1 ones, ResNet-18 on 32 x 32 x 3 ones."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.kernels import Kernel, Place
from pags_jax import (
    alignment,
    apgd,
    attacks,
    evaluation,
    gaussians,
    generation,
    generative,
    gradients,
    losses,
    manifold,
    models,
    robustness,
    sampling,
    scores,
    shares,
    smoothing,
    training,
)
from pags_jax.datasets.lpips_weights import LpipsLayer

IMAGES, RANK = 1024, 16
SHAPES = {"lenet": (28, 28, 1), "resnet18": (32, 32, 3)}
SIZE = f"{IMAGES:,} images"
KEY = 0


def _key() -> Any:
    return jax.random.key(KEY)


def _images(place: Place, name: str, dtype: Any = jnp.float32) -> Any:
    return place.rows((IMAGES, *SHAPES[name]), dtype)


def _labels(place: Place) -> Any:
    return place.rows((IMAGES,), jnp.int32)


def _variables(place: Place, model: Any, x: Any, **given: Any) -> Any:
    like = jnp.zeros((1, *x.shape[1:]), jnp.float32)
    return place.whole(jax.eval_shape(lambda: dict(model.init(_key(), like, **given))))


def _train(name: str, loss: Callable[..., Any]) -> Callable[[Place], Any]:
    """A step of training: its state is given back in place."""

    def make(place: Place) -> Any:
        task = training.Task(models.create(name, classes=10), loss, batch_size=IMAGES)
        x = _images(place, name, jnp.uint8)
        state = place.whole(jax.eval_shape(lambda: training.init(task, jnp.zeros(x.shape, x.dtype), key=_key())))
        hyper = place.whole(jax.eval_shape(lambda: _as_arrays(training.Hyper(0.1, 0.1, training.milestones(4, 2)))))
        return partial(training.step, task), (state, x, _labels(place), hyper)

    return make


def _as_arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def _of_classifier(function: Callable[..., Any], name: str = "resnet18") -> Callable[[Place], Any]:
    """``function(apply_fn, x, y)``."""

    def make(place: Place) -> Any:
        model, x = models.create(name, classes=10), _images(place, name)
        return (
            lambda variables, x, y: function(models.evaluator(model, variables), x, y),
            (_variables(place, model, x, train=False), x, _labels(place)),
        )

    return make


def _of_basis(function: Callable[..., Any]) -> Callable[[Place], Any]:
    """``function(apply_fn, x, y, basis)``."""

    def make(place: Place) -> Any:
        model, x = models.create("resnet18", classes=10), _images(place, "resnet18")
        basis = place.rows((IMAGES, RANK, *x.shape[1:]))
        return (
            lambda variables, x, y, basis: function(models.evaluator(model, variables), x, y, basis),
            (_variables(place, model, x, train=False), x, _labels(place), basis),
        )

    return make


_UNET = models.UNet(channels=3, widths=(64, 128, 256))


def _of_denoiser(function: Callable[..., Any]) -> Callable[[Place], Any]:
    """``function(denoise, x, y)``; ``denoise`` takes labels as ``labels``."""

    def make(place: Place) -> Any:
        model, x = _UNET, _images(place, "resnet18")
        return (
            lambda variables, x, y: function(partial(scores.denoiser, model, variables), x, y),
            (_variables(place, model, x), x, _labels(place)),
        )

    return make


def _train_denoiser(place: Place) -> Any:
    model, x = _UNET, _images(place, "resnet18", jnp.uint8)
    task = training.Task(model, generative.denoising, batch_size=IMAGES)
    state = place.whole(jax.eval_shape(lambda: generative.init(task, jnp.zeros(x.shape, x.dtype), key=_key())))
    hyper = place.whole(jax.eval_shape(lambda: _as_arrays(generative.Hyper(1e-3))))
    return partial(generative.step, task), (state, x, _labels(place), hyper)


def _of_decoder(function: Callable[..., Any]) -> Callable[[Place], Any]:
    """``function(decode, z)``."""

    def make(place: Place) -> Any:
        model = models.Autoencoder((32, 32, 3), latent=128, widths=(64, 144, 320))
        return (
            lambda variables, z: function(models.decoder(model, variables), z),
            (_variables(place, model, _images(place, "resnet18")), place.rows((IMAGES, 128))),
        )

    return make


def _tangents(decode: Any, z: Any) -> Any:
    return manifold.tangent_basis(decode, z, chunk_size=64)


def _local_pca(place: Place) -> Any:
    return (lambda points: manifold.local_pca(points, rank=RANK)), (place.rows((IMAGES, 64, *SHAPES["resnet18"])),)


def _nearest(place: Place) -> Any:
    return (
        lambda x, data: manifold.nearest(x, data, count=64, itself=None, chunk_size=128),
        (_images(place, "resnet18"), place.whole((50_000, *SHAPES["resnet18"]))),
    )


def _denoiser_basis(denoise: Any, x: Any, y: Any) -> Any:
    del y
    return manifold.denoiser_basis(denoise(), x, sigma_pm1=0.1, rank=RANK, key=_key(), iterations=4, chunk_size=64)


def _bayes_gradient(denoise: Any, x: Any, y: Any) -> Any:
    return scores.bayes_gradient(denoise(labels=y), denoise(), x, sigma_pm1=0.1)


def _sample(denoise: Any, x: Any, y: Any) -> Any:
    return scores.heun_step(denoise(labels=y), x, jnp.float32(1.0), jnp.float32(0.9))


def _inpaint(denoise: Any, x: Any, y: Any) -> Any:
    known = jnp.ones((*x.shape[:3], 1), bool).at[:, 8:24, 8:24].set(False)
    return sampling.inpaint(denoise(labels=y), x, known, scores.noise_schedule(2), key=_key())


#: AlexNet's convolutions (Krizhevsky 2014): channels, and the side of the kernel.
ALEXNET = ((3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3))


def _lpips(place: Place) -> Any:
    layers = tuple(
        LpipsLayer(*(place.whole(shape) for shape in ((side, side, into, out), (out,), (out,))))
        for into, out, side in ALEXNET
    )
    x = place.rows((IMAGES, 64, 64, 3))
    return (lambda a, b, weights: alignment.lpips(a, b, weights=weights)), (x, x, layers)


def _fit_gaussians(place: Place) -> Any:
    return (lambda x, y: gaussians.fit(x, y, classes=10)), (_images(place, "resnet18"), _labels(place))


def _synthesize(place: Place) -> Any:
    model, x = models.create("resnet18", classes=10), _images(place, "resnet18")
    fitted = jax.eval_shape(lambda x, y: gaussians.fit(x, y, classes=10), x, _labels(place))
    return (
        lambda variables, fitted, y: generation.synthesize(
            models.evaluator(model, variables), fitted, y, key=_key(), eps_l2=40.0, steps=60
        ),
        (_variables(place, model, x, train=False), place.whole(fitted), _labels(place)),
    )


def _gradients(target: gradients.Target) -> Callable[..., Any]:
    return lambda apply_fn, x, y: gradients.input_gradients(apply_fn, x, y, target=target)


def _attack(attack: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda apply_fn, x, y: attack(apply_fn, x, y, key=_key(), eps_l2=0.5, **options)


def _score_alignment(apply_fn: Any, x: Any, y: Any, key: Any, strength: Any, *, has_aux: bool = False) -> Any:
    # The score of one Gaussian: it depends on the images, as users' scores do. XLA would fold a constant for seconds.
    return losses.score_alignment(apply_fn, x, y, key, strength, score=(0.5 - x) / 0.25**2, has_aux=has_aux)


_LOSSES = {**losses.LOSSES, "score_alignment": _score_alignment}
#: One forward pass of each network over the batch.
FORWARD: dict[str, Callable[[Place], Any]] = {
    "lenet": _of_classifier(lambda apply_fn, x, y: apply_fn(x), "lenet"),
    "resnet18": _of_classifier(lambda apply_fn, x, y: apply_fn(x)),
    "unet": _of_denoiser(lambda denoise, x, y: denoise()(x, 0.1)),
    "decoder": _of_decoder(lambda decode, z: decode(z)),
}

KERNELS = [
    *(
        Kernel(f"training step {name}, {loss}", SIZE, _train(name, function))
        for name in ("lenet", "resnet18")
        for loss, function in _LOSSES.items()
    ),
    Kernel("input_gradients lenet, loss", SIZE, _of_classifier(_gradients("loss"), "lenet")),
    *(
        Kernel(f"input_gradients resnet18, {target}", SIZE, _of_classifier(_gradients(target)))
        for target in ("logit_sum", "logit", "log_prob", "loss")
    ),
    Kernel("smoothed_gradients resnet18", f"{SIZE}, 16 draws", _of_classifier(
        lambda f, x, y: gradients.smoothed_gradients(
            f, x, y, target="logit", key=_key(), sigma=0.1, samples=16, chunk_size=128
        )
    )),
    Kernel("integrated_gradients resnet18", f"{SIZE}, 32 points", _of_classifier(
        lambda f, x, y: gradients.integrated_gradients(f, x, y, target="logit", chunk_size=128)
    )),
    Kernel("pgd resnet18", f"{SIZE}, 10 steps", _of_classifier(_attack(attacks.pgd, steps=10))),
    Kernel("apgd resnet18", f"{SIZE}, 100 steps", _of_classifier(_attack(apgd.apgd, steps=100))),
    Kernel("apgd_targeted resnet18", f"{SIZE}, 100 steps", _of_classifier(_attack(apgd.apgd_targeted, steps=100))),
    Kernel("robustly_correct resnet18", f"{SIZE}, 20 steps", _of_classifier(
        _attack(evaluation.robustly_correct, steps=20)
    )),
    Kernel("tangent_basis", f"{SIZE}, 128 codes", _of_decoder(_tangents)),
    Kernel("local_pca", f"{SIZE}, 64 neighbours", _local_pca),
    Kernel("nearest", f"{SIZE} among 50,000", _nearest),
    Kernel("denoiser_basis", f"{SIZE}, rank 16", _of_denoiser(_denoiser_basis)),
    Kernel("manifold_robustness resnet18", f"{SIZE}, rank 16, 4 draws", _of_basis(
        lambda f, x, y, basis: robustness.manifold_robustness(f, x, basis, eps_l2=0.5, key=_key(), draws=4)
    )),
    Kernel("relative_noise_robustness resnet18", f"{SIZE}, 4 draws", _of_classifier(
        lambda f, x, y: robustness.relative_noise_robustness(
            f, x, jnp.ones(x.shape, bool).at[:, :16].set(False), sigma=0.1, key=_key(), draws=4
        )
    )),
    Kernel("off_manifold_share resnet18", f"{SIZE}, rank 16", _of_basis(
        lambda f, x, y, basis: shares.off_manifold_share(gradients.input_gradients(f, x, y, target="logit"), basis)
    )),
    Kernel("off_manifold_share_by_noise resnet18", f"{SIZE}, rank 16", _of_basis(
        lambda f, x, y, basis: shares.off_manifold_share_by_noise(
            lambda x: f(x)[:, 0], x, basis, sigma=1e-3, key=_key(), draws=4)
    )),
    Kernel("training step U-Net, denoising", SIZE, _train_denoiser),
    Kernel("score", SIZE, _of_denoiser(lambda denoise, x, y: scores.score(denoise(), x, sigma_pm1=0.1))),
    Kernel("bayes_gradient", SIZE, _of_denoiser(_bayes_gradient)),
    Kernel("heun_step", SIZE, _of_denoiser(_sample)),
    Kernel("inpaint", f"{SIZE}, 2 levels", _of_denoiser(_inpaint)),
    Kernel("lpips", f"{SIZE} of 64 x 64", _lpips),
    Kernel("smoothing certify resnet18", f"{SIZE}, 100,000 draws", _of_classifier(
        lambda f, x, y: smoothing.certify(f, x, key=_key(), sigma=0.25)
    )),
    Kernel("gaussians fit", SIZE, _fit_gaussians),
    Kernel("synthesize resnet18", f"{SIZE}, 60 steps", _synthesize),
    Kernel("counterfactual resnet18", f"{SIZE}, 60 steps", _of_classifier(
        lambda f, x, y: generation.counterfactual(f, x, y, eps_l2=10.0, steps=60)
    )),
]  # fmt: skip
