"""Recognises the network of tensors from their names and shapes alone, and checks that the file says the same."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from pags_jax.models.edm import DhariwalUNet, SongUNet
from pags_jax.models.preactivation import PreActivationResNet
from pags_jax.models.records import described, printable
from pags_jax.models.resnet import ResNet
from pags_jax.models.states import State

#: In what order an EDM network's constructor takes its first arguments, and their names here.
_RECORDED = {
    "img_resolution": "resolution", "in_channels": "channels", "out_channels": "channels", "label_dim": "classes",
    "augment_dim": "augment", "model_channels": "width", "channel_mult": "multipliers",
    "channel_mult_emb": "embedding", "num_blocks": "blocks", "attn_resolutions": "attention",
    "embedding_type": "frequencies", "channel_mult_noise": "noise_width", "encoder_type": "encoder",
}  # fmt: skip
_TAPS = 16


def recognise(state: State, *, source: str) -> tuple[nn.Module, str, int]:
    """The network of a checkpoint.

    Args:
      state: its tensors and what it says of itself.
      source: what to call it in messages.

    Returns:
      The module, without normalisation of images; whose names its tensors have (``published.FAMILIES``); and the number
      of the images' channels.

    Raises:
      ValueError: another network than those that are known, or another one than the file says.
    """
    shapes = {name: array.shape for name, array in state.arrays.items()}
    try:
        if "map_layer0.weight" in shapes:
            model = _edm(state, shapes, source)
            return model, "edm", model.channels
        for known, family, build in _FIRST:
            if known in shapes:
                try:
                    model, family = build(shapes, family)
                except ValueError as error:
                    raise ValueError(f"{source}: {error}") from None
                return model, family, shapes[next(name for name in _STEMS if name in shapes)][1]
    except (KeyError, IndexError, ZeroDivisionError, TypeError) as error:
        raise ValueError(f"{source} lacks tensors of the network that the others belong to ({error})") from None
    raise ValueError(
        f"{source} holds tensors of a network that is not known, such as {', '.join(sorted(shapes)[:4]) or 'none'}"
    )


# -------------------------------------------------------------------------------------------------- classifiers
Shapes = Mapping[str, tuple[int, ...]]


def _blocks(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has, by the pattern of their names' begin."""
    found = [tuple(map(int, match.groups())) for name in shapes if (match := re.match(pattern, name))]
    stages = sorted({stage for stage, _ in found})
    if (most := max((number for _, number in found), default=0)) >= len(shapes):
        raise KeyError(f"it names block {most} and has {len(shapes)} tensors")  # Nothing is built of so many.
    return tuple(1 + max(number for stage, number in found if stage == at) for at in stages)


def _preactivation(shapes: Shapes, family: str) -> tuple[nn.Module, str]:
    pattern, first, block, layer, last = {
        "deepmind-wide": (r"layer\.(\d+)\.block\.(\d+)\.", "init_conv", "layer.{}.block.0.", "conv_0", "logits"),
        "deepmind": (r"layer_(\d+)\.(\d+)\.", "conv_2d", "layer_{}.0.", "conv_2d_1", "logits"),
        "trades-wide": (r"block(\d+)\.layer\.(\d+)\.", "conv1", "block{}.layer.0.", "conv1", "fc"),
        "robustbench": (r"layer(\d+)\.(\d+)\.", "conv1", "layer{}.0.", "conv1", "linear"),
    }[family]
    blocks = _blocks(shapes, pattern)
    start = 0 if family.startswith("deepmind") else 1
    deepmind, wide = family.startswith("deepmind"), family.endswith("wide")
    final_norm = family != "robustbench" or "bn.weight" in shapes
    return PreActivationResNet(
        classes=shapes[f"{last}.weight"][0],
        blocks=blocks,
        widths=tuple(shapes[f"{block.format(start + i)}{layer}.weight"][0] for i in range(len(blocks))),
        stem=shapes[f"{first}.weight"][0],
        activation="silu" if deepmind else "relu",
        padding="same" if deepmind else "symmetric",
        shortcut=3 if family == "deepmind" else 1,
        # RobustBench's PreActResNets with a last normalisation are those whose shortcuts see what is activated.
        shortcut_of="activated" if wide or (family == "robustbench" and final_norm) else "input",
        final_norm=final_norm,
        bias=family != "trades-wide" or f"{last}.bias" in shapes,
    ), family


def _resnet(shapes: Shapes, _: str) -> tuple[nn.Module, str]:
    family = "imagenet" if "fc.weight" in shapes else "cifar"
    blocks = _blocks(shapes, r"layer(\d+)\.(\d+)\.")
    bottleneck = "layer1.0.conv3.weight" in shapes
    stem, size = shapes["conv1.weight"][0], shapes["conv1.weight"][-1]
    if size not in (3, 7):
        raise ValueError(f"the first convolution is {size} x {size}, known are 3 x 3 and 7 x 7")
    inner = [shapes[f"layer{stage + 1}.0.conv1.weight"][0] for stage in range(len(blocks))]
    widths = (
        [shapes[f"layer{stage + 1}.0.conv3.weight"][0] // 4 for stage in range(len(blocks))] if bottleneck else inner
    )
    if shapes["layer1.0.conv2.weight"][1] != inner[0]:
        raise ValueError("convolutions in groups (ResNeXt) are not supported")
    doubled = all(width == stem * 2**stage for stage, width in enumerate(widths))
    return ResNet(
        classes=shapes["fc.weight" if family == "imagenet" else "linear.weight"][0],
        blocks=blocks,
        width=stem / 64,
        bottleneck=bottleneck,
        inner=inner[0] / widths[0],
        stages=None if doubled else tuple(widths),
        stem=size,
    ), family


_STEMS = ("init_conv.weight", "conv_2d.weight", "conv1.weight")
_FIRST = (
    ("init_conv.weight", "deepmind-wide", _preactivation),
    ("conv_2d.weight", "deepmind", _preactivation),
    ("block1.layer.0.bn1.weight", "trades-wide", _preactivation),
    ("bn1.weight", "", _resnet),
    ("layer1.0.bn1.weight", "robustbench", _preactivation),
)


# ----------------------------------------------------------------------------------------------------- denoisers
def _edm(state: State, shapes: Shapes, source: str) -> SongUNet | DhariwalUNet:
    """A network of EDM: names hold resolutions, and shapes the rest."""
    for kind in state.classes:
        if kind.endswith("Precond") and kind != "EDMPrecond":
            raise ValueError(f"{source}: the preconditioning {described(kind)} is not supported, only EDMPrecond")
    for part in ("_aux_skip", "_aux_up", "_aux_down"):
        if any(part in name for name in shapes):
            raise ValueError(f"{source}: encoders and decoders of the type 'skip' are not supported ({part})")
    sizes = sorted({int(match[1]) for name in shapes if (match := re.match(r"enc\.(\d+)x\1_", name))}, reverse=True)
    if any(size != sizes[0] >> level for level, size in enumerate(sizes)):
        raise ValueError(f"{source}: each level must have half the resolution of the last one, got {sizes}")
    song = any("_aux_norm" in name for name in shapes)
    width = shapes[f"enc.{sizes[0]}x{sizes[0]}_conv.weight" if song else "map_layer0.weight"][0 if song else 1]
    embedding, noise_width = shapes["map_layer0.weight"]
    options: dict[str, Any] = {
        "channels": shapes[f"enc.{sizes[0]}x{sizes[0]}_conv.weight"][1],
        "classes": shapes.get("map_label.weight", (0, 0))[1],
        "resolution": sizes[0],
        "width": width,
        "multipliers": tuple(shapes[f"enc.{size}x{size}_block0.conv1.weight"][0] // width for size in sizes),
        "embedding": embedding // width,
        "blocks": len(
            {name for name in shapes if re.match(rf"enc\.{sizes[0]}x{sizes[0]}_block\d+\.norm0\.weight", name)}
        ),
        "attention": tuple(s for s in sizes if any(re.match(rf"enc\.{s}x{s}_block\d+\.qkv\.", n) for n in shapes)),
        "augment": shapes.get("map_augment.weight", (0, 0))[1],
        "sigma_data": _sigma_data(state, source),
    }
    if song:
        square = next(
            (array for name, array in state.arrays.items() if name.endswith("resample_filter")), np.ones((2, 2))
        )
        size = square.shape[-1] if square.ndim else 0
        if square.size != size**2 or not 1 <= size <= _TAPS:
            raise ValueError(
                f"{source}: the filter that resamples has the shape {square.shape}, expected {_TAPS} taps at most"
            )
        taps = np.asarray(square, np.float64).reshape(size, size).sum(0)
        if not (np.isfinite(taps) & (taps > 0)).all():
            raise ValueError(f"{source}: the filter that resamples must be of numbers above 0, got {taps.tolist()}")
        options |= {
            "noise_width": noise_width // width,
            "frequencies": "fourier" if "map_noise.freqs" in shapes else "positional",
            "encoder": "residual" if any("_aux_residual" in name for name in shapes) else "standard",
            "taps": tuple((taps / taps.min()).round(4).tolist()),
        }
    model = SongUNet(**options) if song else DhariwalUNet(**options)
    _check_recorded(model, state, source)
    return model


def _sigma_data(state: State, source: str) -> float:
    sigma = state.settings.get("sigma_data", 0.5)
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < 1e6:
        raise ValueError(f"{source}: sigma_data must be a number above 0 and below 10^6, got {described(sigma)}")
    return float(sigma)


def _check_recorded(model: SongUNet | DhariwalUNet, state: State, source: str) -> None:
    """Raises ValueError unless the arguments that the file records for the constructor are those the tensors show."""
    if state.classes and state.classes[0] not in (type(model).__name__, "EDMPrecond"):
        raise ValueError(
            f"{source} says {described(state.classes[0])}, and its tensors are those of a {type(model).__name__}"
        )
    for name, recorded in state.recorded.items():
        actual = getattr(model, _RECORDED.get(name, ""), None)
        if name == "attn_resolutions" and isinstance(recorded, tuple) and isinstance(actual, tuple):
            levels = {model.resolution >> level for level in range(len(model.multipliers))}
            recorded, actual = {*recorded} & levels, {*actual}
            if isinstance(model, DhariwalUNet):  # Narrow blocks have no head to attend with.
                recorded = {
                    s for s in recorded if s in actual or model.multipliers[_level(model, s)] * model.width >= 64
                }
        if actual is not None and recorded != actual:
            said = printable(str(recorded)[:80])
            raise ValueError(f"{source} was made with {name}={said}, and its tensors have {actual}")


def _level(model: Any, size: int) -> int:
    return (model.resolution // size).bit_length() - 1
