"""Networks as programs: what ``files.save`` wrote, for use without this package and without flax.

``export`` lowers a saved network to StableHLO by ``jax.export``, for CPUs, GPUs and TPUs at once, and writes it beside
the weights, which the program takes as its first argument: ``NAME.jax_export``, and ``NAME.json``, which says in plain
values what it takes and returns. With JAX and safetensors alone it is run by

    arrays = safetensors.numpy.load_file("NAME.safetensors")
    program = jax.export.deserialize(bytearray(open("NAME.jax_export", "rb").read()))
    logits = program.call(arrays, images)

and ``load_exported`` does so after checking that the three files belong together. The program takes any number of
images, and has its derivative with it, so that input gradients can be taken. JAX promises to read such a program for
six months after it was written; the weights can be lowered again at any time. Needs the extra `export` (flatbuffers).
"""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from pags_jax.models import architectures, files, registry
from pags_jax.scores import preconditioned

PROGRAM, DESCRIPTION = ".jax_export", ".json"
#: Devices that a program is lowered for.
PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    path: str | Path, *, image_shape: tuple[int, int, int], platforms: Sequence[str] = PLATFORMS
) -> tuple[Path, Path]:
    """Writes the program of a saved network and its description beside the weights.

    Args:
      path: Path of what ``files.save`` wrote, a classifier or a denoiser.
      image_shape: Height, width and channels of the images that the program is for.
      platforms: Platforms of the devices that it is to run on: "cpu", "cuda", "rocm", "tpu".

    Returns:
      The paths of the program and of the description.

    Raises:
      FileNotFoundError, ValueError: As ``files.load``; an autoencoder, or images that the network is not for.
      ImportError: Flatbuffers is not installed.
    """
    path = Path(path)
    model, variables, about = files.load(path)
    stored, sha256 = files.read(path)
    kind = architectures.kind_of(model)
    if kind == "autoencoder":
        raise ValueError(f"{path} holds an autoencoder, which is two functions: classifiers and denoisers are exported")
    (n,) = jax.export.symbolic_shape("n")
    taken: dict[str, tuple[tuple[Any, ...], Any]] = {"images": ((n, *image_shape), np.float32)}
    classes = model.classes  # pyright: ignore[reportAttributeAccessIssue]
    if kind == "denoiser":
        taken["sigma"] = ((n,), np.float32)
        taken |= {"labels": ((n,), np.int32)} if classes else {}
    returned = {"logits": ["n", classes]} if kind == "classifier" else {"images": ["n", *image_shape]}
    structure, names = jax.tree.structure(variables), list(architectures.by_path(variables))
    run = _classify if kind == "classifier" else _denoise

    @jax.jit
    def program(arrays: Any, *inputs: Any) -> Any:
        leaves = [arrays[name].astype(jnp.float32) for name in names]
        return run(model, jax.tree.unflatten(structure, leaves), *inputs)

    sizes = {name: [s if isinstance(s, int) else str(s) for s in shape] for name, (shape, _) in taken.items()}
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in stored.items()}
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in taken.values()]
    lowered = jax.export.export(program, platforms=tuple(platforms))(shapes, *inputs)
    content = bytes(lowered.serialize(vjp_order=1))  # With its first derivative.
    description = {
        "kind": kind,
        "program": path.with_suffix(PROGRAM).name,
        "program_sha256": hashlib.sha256(content).hexdigest(),
        "weights": path.name,
        "weights_sha256": sha256,
        "inputs": {"arrays": "the tensors of the weights by name", **sizes},
        "dtypes": {name: np.dtype(dtype).name for name, (_, dtype) in taken.items()},
        "ranges": _RANGES[kind] | ({"labels": [0, classes]} if "labels" in taken else {}),
        "outputs": returned,
        "platforms": list(platforms),
        "jax": jax.__version__,
        "about": about,
    }
    text = json.dumps(description, indent=1, sort_keys=True)
    made = path.with_suffix(PROGRAM), path.with_suffix(DESCRIPTION)
    for target, data in zip(made, (content, text.encode()), strict=True):
        files.write(target, functools.partial(Path.write_bytes, data=data))
    return made


def load_exported(path: str | Path) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A network as the program that ``export`` wrote, and its description.

    Args:
      path: Path of the weights, the program or the description, which lie beside each other.

    Returns:
      ``apply_fn(x)``, or ``denoise(x, sigma, labels=None)`` with ``sigma`` for each image or one for all, as
      ``load_pretrained`` gives them, of float32 images of the shape that it was exported for, any number at a time;
      and what the description says.

    Raises:
      FileNotFoundError: One of the files is not there.
      ValueError: They do not belong together, or this version of JAX cannot read the program.
    """
    path = Path(path)
    weights, program, description = (path.with_suffix(end) for end in (files.SUFFIX, PROGRAM, DESCRIPTION))
    for part in (description, program):
        if not part.is_file():
            raise FileNotFoundError(f"no file {part}; models.export writes it")
    try:
        metadata = json.loads(description.read_text(encoding="utf-8"))
        expected = metadata["program_sha256"], metadata["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{description} is no description that models.export wrote ({error})") from error
    content = program.read_bytes()
    arrays, stated = files.read(weights)
    for part, found, sha256 in zip(
        (program, weights), (hashlib.sha256(content).hexdigest(), stated), expected, strict=True
    ):
        if found != sha256:
            raise ValueError(f"{part} is not the one of {description}: its SHA-256 is {found}, expected {sha256}")
    try:
        lowered = jax.export.deserialize(bytearray(content))
    except Exception as error:  # Whatever a later version of JAX makes of an earlier program.
        raise ValueError(f"{program} cannot be read by JAX {jax.__version__}: export it again ({error})") from error
    variables = {name: jnp.asarray(array) for name, array in arrays.items()}
    if metadata["kind"] == "classifier":
        return jax.tree_util.Partial(lowered.call, variables), metadata
    classes = metadata["ranges"].get("labels", (0, 0))[1]
    return jax.tree_util.Partial(_Denoise(lowered.call, classes), variables), metadata


_RANGES: dict[str, dict[str, list[float]]] = {
    "classifier": {"images": [0, 1]},
    "denoiser": {"images": [-1, 1], "sigma": [0.002, 80]},
}


def _classify(model: Any, variables: Any, images: Any) -> Any:
    return registry.evaluator(model, variables)(images)


def _denoise(model: Any, variables: Any, images: Any, sigma: Any, labels: Any = None) -> Any:
    """Denoises images; a label one beyond the classes stands for no label, with every network here."""
    network = jax.tree_util.Partial(model.apply, variables, labels=labels)
    return preconditioned(network, sigma_data=model.sigma_data)(images, sigma)


class _Denoise:
    """Calls a denoiser's program, with a label one beyond the classes where no label is given."""

    def __init__(self, call: Callable[..., Any], classes: int):
        self.call, self.classes = call, classes

    def __call__(self, variables: Any, x: Any, sigma: Any, labels: Any = None) -> Any:
        if labels is not None and not self.classes:
            raise ValueError("this denoiser knows no classes; call it without labels")
        count = x.shape[:1]
        told = [jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), count)]
        if self.classes:
            labels = self.classes if labels is None else labels
            told.append(jnp.broadcast_to(jnp.asarray(labels, jnp.int32), count))
        return self.call(variables, x, *told)
