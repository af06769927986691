"""How well a trained denoiser or autoencoder does, on images that it was trained on and on others.

    quality.denoiser(model, variables, data, 0.5, key=jax.random.key(0))    # losses at a noise level, by their names
    quality.autoencoder(model, variables, data)                             # mean squared errors, by their names

Images are bytes, as data sets hold them; losses and errors are means over images, in float64.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from pags_jax import models, sampling, scores
from pags_jax.chunks import check_counts
from pags_jax.datasets.labelled_images import Images
from pags_jax.images import to_float

#: Images of which the artefacts of a denoiser's score are measured, at most.
SCORED = 200


def mean_over(function: Callable[..., Any], *columns: Any, batch_size: int = 500) -> float:
    """The mean of one number for each row, computed in batches.

    Args:
      function: Maps rows of all columns to ``(rows,)``; it is called with a smaller batch in the end.
      columns: Arrays of as many rows each.
      batch_size: Rows in a batch.

    Raises:
      ValueError: No rows, columns of different lengths, or a batch size below 1.

    >>> mean_over(lambda x, y: x * y, np.arange(3.0), np.ones(3), batch_size=2)
    1.0
    """
    check_counts(batch_size=batch_size)
    lengths = {len(column) for column in columns}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"expected columns of one length, and at least one row, got {sorted(lengths)}")
    starts = range(0, len(columns[0]), batch_size)
    parts = [np.asarray(function(*(column[k : k + batch_size] for column in columns))) for k in starts]
    return float(np.concatenate(parts).mean(dtype=np.float64))


def sigma_data(x: UInt8[np.ndarray, "n h w c"]) -> float:
    """The standard deviation of the pixels in [-1, 1], ``sigma_data`` of EDM's preconditioning, to three digits.

    Args:
      x: Training images; the first 10,000 count.

    >>> sigma_data(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    1.0
    """
    return round(float(2 * x[:10_000].std(dtype=np.float64) / 255), 3)


def denoising_losses(
    denoise: scores.Denoiser,
    x: UInt8[Array | np.ndarray, "n h w c"],
    sigma_pm1: Any,
    noise: Float[Array, "n h w c"],
    data: Any,
) -> Float[Array, " n"]:
    """``scores.denoising_loss`` of bytes, as ``denoiser`` calls it; ``data`` is the network's ``sigma_data``."""
    return scores.denoising_loss(denoise, 2 * to_float(x) - 1, sigma_pm1, noise, sigma_data=data)


def denoiser(
    model: Any, variables: Any, data: Images, sigma_pm1: float, *, key: Array, rows: int = 2000,
    losses: Callable[..., Any] = denoising_losses, score: Callable[..., Any] = scores.score,
) -> dict[str, float | None]:  # fmt: skip
    """Losses of a denoiser at one noise level, all under the same noise, and the artefacts of its score.

    Args:
      model: See ``scores.denoiser``.
      variables: Its variables.
      data: Images and labels.
      sigma_pm1: Noise level for images in [-1, 1].
      key: Draws the noise.
      rows: Training and test images to measure on, counted from the first.
      losses: ``denoising_losses``, best under a ``jit`` of your own.
      score: ``scores.score``, likewise.

    Returns:
      ``train_loss``; ``test_loss``, and ``test_loss_labelled`` of the denoiser that knows the class, which are about
      1 for a fresh network (``scores.denoising_loss``); ``test_rms_error`` of a pixel in [-1, 1]; and ``checkerboard``
      of the score at clean test images (``sampling.checkerboard``, which may be None).
    """

    def mean_loss(x: Any, y: Any) -> float:
        x = jnp.asarray(x[:rows])
        noise, labels = jax.random.normal(key, x.shape, jnp.float32), () if y is None else (jnp.asarray(y[:rows]),)

        def of_batch(x: Any, noise: Any, *labels: Any) -> Any:
            return losses(scores.denoiser(model, variables, *labels), x, sigma_pm1, noise, model.sigma_data)

        return mean_over(of_batch, x, noise, *labels)

    unlabelled = mean_loss(data.test_x, None)
    clean = to_float(jnp.asarray(data.test_x[: min(rows, SCORED)]))
    found = score(scores.denoiser(model, variables), clean, sigma_pm1=jnp.float32(sigma_pm1))
    return {
        "train_loss": mean_loss(data.train_x, None),
        "test_loss": unlabelled,
        "test_loss_labelled": mean_loss(data.test_x, data.test_y),
        "test_rms_error": float(np.sqrt(unlabelled / scores.loss_weight(sigma_pm1, model.sigma_data))),
        "checkerboard": sampling.checkerboard(np.asarray(found, np.float64)),
    }


def reconstruction_errors(encode: Any, decode: Any, x: UInt8[Array | np.ndarray, "n h w c"]) -> Float[Array, " n"]:
    """Each image's mean squared error over pixels in [0, 1], of bytes, as ``autoencoder`` calls it."""
    x = to_float(x)
    return ((decode(encode(x)) - x) ** 2).mean((1, 2, 3))


def autoencoder(
    model: Any, variables: Any, data: Images, *, rows: int = 2000,
    errors: Callable[..., Any] = reconstruction_errors,
) -> dict[str, float]:  # fmt: skip
    """Mean squared errors of an autoencoder over pixels in [0, 1].

    Args:
      model: A ``models.Autoencoder``.
      variables: Its variables.
      data: Images.
      rows: Training and test images to measure on, counted from the first.
      errors: ``reconstruction_errors``, best under a ``jit`` of your own.

    Returns:
      ``train_error``, ``test_error``, and ``mean_image_error`` if the mean training image stands for each test image.
    """
    encode, decode = models.encoder(model, variables), models.decoder(model, variables)
    mean, test_x = data.train_x.mean(0, keepdims=True, dtype=np.float64), data.test_x[:rows]
    return {
        "train_error": mean_over(lambda x: errors(encode, decode, x), data.train_x[:rows]),
        "test_error": mean_over(lambda x: errors(encode, decode, x), test_x),
        "mean_image_error": float((((test_x - mean) / 255) ** 2).mean()),
    }
