"""``load_pretrained``: a trained classifier or denoiser, from our file or its publisher's, of which nothing is run."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pags_jax.datasets import reading
from pags_jax.models import architectures, catalogue, files, published, registry
from pags_jax.models.files import Pretrained
from pags_jax.models.preactivation import Normalised
from pags_jax.models.recognise import recognise
from pags_jax.models.states import NORMALISERS, State, find_state
from pags_jax.models.torch_files import MOST_BYTES, load_file
from pags_jax.scores import Preconditioned, denoiser

Normaliser = tuple[tuple[float, ...], tuple[float, ...], bool]
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616), False)
_CHANNELS = 1000
_UNUSED = "sub_block1."  # TRADES' WideResNets carry a stage that their forward pass never calls.
_CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), False)


def load_pretrained(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    sha256: str | None = None,
    dtype: Any = jnp.float32,
    entry: str | None = None,
    normaliser: Normaliser | Literal["file"] | None = "file",
    **options: Any,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Reads a trained classifier or denoiser as the function that all measures take.

    Files are what ``models.save`` writes (``.safetensors``), and those of EDM (``.pkl``), of MadryLab's robustness and
    Microsoft's robust-models-transfer (``.pt``, ``.ckpt``), of RobustBench and DeepMind (``.pt``). They are read
    without PyTorch, and no code in them is run. A publisher's network is found from the tensors; every tensor is used
    once, and none may be missing.

    Args:
      path: of the file, or a name in ``models.catalogue.PUBLISHED``, such as "rebuffi-wrn-28-10-l2".
      folder: where the file of a name lies; by default ``weights`` in the package's cache folder.
      sha256: what the SHA-256 of the file must be, in hex; with it the file of a name is downloaded, if it is not there
        and its publisher offers it by plain HTTPS.
      dtype: what to compute in: float32; bfloat16 or float16, with parameters in float32; float64, which needs JAX's.
      entry: the entry of the file to take, where it holds several models; by default averaged weights before others.
      normaliser: mean, standard deviation and whether to clip to [0, 1] before, if the file does not say, or None for
        images as they are. By default what the file holds; DeepMind's networks, whose files hold none, have CIFAR's.
      **options: attributes of the network that tensors do not show, such as ``activation="relu"``.

    Returns:
      For a classifier ``apply_fn(x)``, logits ``(n, classes)`` of images ``(n, height, width, channels)`` in [0, 1].
      For a denoiser ``denoise(x, sigma, labels=None)`` of images in [-1, 1], a ``PretrainedDenoiser``; ``labels`` are
      the class of each image, ``(n,)``, one for all, or None for whatever class. Both are pytrees that ``jit`` can
      take as arguments.
      Then what is known, a dict: kind ("classifier" or "denoiser"), network, options, dtype, channels, classes,
      normaliser (of a classifier), parameters, tensors, source, sha256, and what ``models.save`` was told. Of a
      publisher's file also resolution (of a denoiser), family, unused (tensors that the original does not use either),
      entry, recorded (constructor arguments); of one in the catalogue name, trained, licence, paper.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged or harmful file, or one of another SHA-256; another network than those that are known; a
        tensor that is missing, left over or of another shape; or an option that the network does not have.

    >>> from pags_jax.datasets import pretrained
    >>> denoise, about = load_pretrained(pretrained.DENOISER)
    >>> about["kind"], about["classes"], denoise(jnp.zeros((1, 28, 28, 1), jnp.float32), 0.5, labels=3).shape
    ('denoiser', 10, (1, 28, 28, 1))
    """
    given = {"folder": folder, "sha256": sha256, "dtype": dtype, "entry": entry, "normaliser": normaliser, **options}
    model, variables, about = read_pretrained(path, **given)
    if about["kind"] == "denoiser":
        network = jax.tree_util.Partial(model.apply, variables, labels=None)
        return PretrainedDenoiser(network, model.sigma_data, model), about  # pyright: ignore[reportAttributeAccessIssue]
    return jax.tree_util.Partial(model.apply, variables), about


def read_pretrained(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    sha256: str | None = None,
    dtype: Any = jnp.float32,
    entry: str | None = None,
    normaliser: Normaliser | Literal["file"] | None = "file",
    **options: Any,
) -> Pretrained:
    """The module and variables of a published network; see ``load_pretrained``."""
    name = str(path) if str(path) in catalogue.PUBLISHED and not Path(path).exists() else None
    if name is not None:
        path = catalogue.find(name, folder, sha256=sha256)
    path, source = Path(path), str(path)
    if not os.path.isfile(path):  # noqa: PTH113 - as in `missing`
        raise FileNotFoundError(catalogue.missing(path))
    reading.check_size(path, MOST_BYTES)
    if (found_sha256 := _sha256(path)) != (sha256 or found_sha256).lower():
        raise ValueError(f"{path} has contents of SHA-256 {found_sha256}, expected {sha256}")
    if path.suffix == files.SUFFIX:
        return _saved(path, found_sha256, dtype, entry, normaliser, options)
    state = find_state(load_file(path), source=source, entry=entry)
    dtype = jnp.dtype(dtype)
    if dtype not in (jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16):
        raise ValueError(f"`dtype` must be float64, float32, bfloat16 or float16, got {dtype}")
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("`dtype` is float64, which JAX does not have unless jax_enable_x64 is set")
    found, state = _normaliser(state, source)
    unused = [name for name in state.arrays if name.startswith(_UNUSED) and name[len("sub_") :] in state.arrays]
    state = state._replace(arrays={name: array for name, array in state.arrays.items() if name not in unused})
    model, family, channels = recognise(state, source=source)
    if dtype.itemsize < 4:
        options = {**options, "dtype": dtype}
    architectures.check_choices(type(model), options)
    try:
        model = model.clone(**options)
    except TypeError:
        raise ValueError(f"{type(model).__name__} does not have the options {', '.join(options)}") from None
    stored = dtype if dtype.itemsize > 4 else jnp.float32
    variables = published.fill(model, family, state.arrays, channels=channels, source=source, dtype=stored)
    read = {
        "family": family,
        "dtype": dtype.name,
        "tensors": len(state.arrays),
        "unused": unused,
        "entry": list(state.entry),
        "recorded": {
            name: list(value) if isinstance(value, tuple) else value for name, value in state.recorded.items()
        },
        "source": path.name,
        "sha256": found_sha256,
    }
    if family == "edm" and normaliser not in ("file", None):
        raise ValueError(f"{path} holds a denoiser, which takes images in [-1, 1] as they are: leave `normaliser` out")
    if family != "edm":
        classes = model.classes  # pyright: ignore[reportAttributeAccessIssue]
        if normaliser == "file" and found is None:
            normaliser = catalogue.normaliser_of(path.name, registry.count_parameters(variables)) or "file"
        chosen = _chosen(normaliser, found, family, classes, channels, path)
        if chosen is not None:
            model = Normalised(model, *chosen)
            variables = {collection: {"network": tree} for collection, tree in variables.items()}
    about = architectures.facts(model, variables) | read
    return Pretrained(model, variables, about | catalogue.known(name, path, about))


def _saved(
    path: Path, sha256: str, dtype: Any, entry: str | None, normaliser: Any, options: dict[str, Any]
) -> Pretrained:
    """A classifier or denoiser that ``files.save`` wrote."""
    if entry is not None or normaliser != "file" or options or jnp.dtype(dtype) != jnp.float32:
        raise ValueError(
            f"{path} holds one network as it was saved: entry, normaliser, dtype and options are a choice of "
            "publishers' files"
        )
    model, variables, about = files.load(path)
    facts = architectures.facts(model, variables)
    if facts["kind"] == "autoencoder":
        raise ValueError(
            f"{path} holds an autoencoder, which is two functions: read it with models.load, and pass the model and "
            "variables to models.encoder and models.decoder"
        )
    return Pretrained(model, variables, facts | {"source": path.name, "sha256": sha256} | about)


@partial(jax.tree_util.register_dataclass, data_fields=("network", "sigma_data"), meta_fields=("model",))
@dataclass(frozen=True)
class PretrainedDenoiser(Preconditioned):
    """A trained denoiser, of any class unless one is given: a pytree, so that ``jit`` can take it as an argument.

    Attributes:
      network: of no class.
      sigma_data: standard deviation of the pixels of the data.
      model: the flax module.
    """

    model: nn.Module

    def __call__(self, x: Any, sigma: Any, labels: Any = None) -> Any:
        """``D(x; sigma)``, of images of the classes ``labels``."""
        return super().__call__(x, sigma) if labels is None else self.of(labels)(x, sigma)

    def of(self, labels: Any) -> Preconditioned:
        """The denoiser of images of the classes ``labels``, ``(n,)`` or one for all.

        Raises:
          ValueError: the network knows no classes, or not these.
        """
        if not self.model.classes:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError("this denoiser knows no classes; call it without labels")
        return denoiser(self.model, self.network.args[0], labels)  # pyright: ignore


def _normaliser(state: State, source: str) -> tuple[Normaliser | None, State]:
    """The normalisation that the file states, and the state without it."""
    for mean, std in NORMALISERS:
        if mean in state.arrays and std in state.arrays:
            rest = {name: array for name, array in state.arrays.items() if name not in (mean, std)}
            arrays = [state.arrays[name] for name in (mean, std)]
            values = [np.asarray(array.reshape(-1)[:_CHANNELS], np.float64) for array in arrays]
            same = arrays[0].size == arrays[1].size <= _CHANNELS
            if not same or not np.isfinite(values).all() or not (values[1] > 0).all():
                raise ValueError(f"{source}: {mean} and {std} are no means and standard deviations of channels")
            found = (tuple(values[0].tolist()), tuple(values[1].tolist()), mean == "normalizer.new_mean")
            return found, state._replace(arrays=rest)
    return None, state


def _chosen(
    normaliser: Any, found: Normaliser | None, family: str, classes: int, channels: int, path: Path
) -> Normaliser | None:
    if normaliser == "file":
        default = (
            (_CIFAR100 if classes == 100 else _CIFAR10) if family.startswith("deepmind") and channels == 3 else None
        )
        normaliser = found or default
    if normaliser is None:
        return None
    try:
        mean, std, clamp = normaliser
        # In float32, as PyTorch keeps them; one number is that of all channels.
        mean, std = (np.broadcast_to(np.asarray(values, np.float32).ravel(), channels) for values in (mean, std))
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError("they must be finite, and the latter above 0")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: `normaliser` must be the mean and the standard deviation of the {channels} channels, and whether "
            f"to clip to [0, 1] before: such as ({(0.5,) * channels}, {(0.25,) * channels}, False), got "
            f"{str(normaliser)[:200]} ({error})"
        ) from None
    return tuple(mean.tolist()), tuple(std.tolist()), bool(clamp)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
