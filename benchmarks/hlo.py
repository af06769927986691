"""What stands in a compiled program: collectives, types, calls, layouts; and the arithmetic of a traced one."""

import collections
import math
import re
from collections.abc import Iterator
from typing import Any

WIDTH = {"pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
WIDTH |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_KINDS = "all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter|ragged-all-to-all|collective-broadcast"
_COLLECTIVE = re.compile(rf"= (.*?) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([\d,]*)(?::T\((\d+)(?:,(\d+))?\))?)?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
#: Of the three primitives of `pags_jax.convolution`: where images, kernel and outputs are among operands and result.
_CONVOLUTIONS = {"convolve": (0, 1, 2), "convolve_by_image": (2, 1, 0), "convolve_by_kernel": (0, 2, 1)}
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


def computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """The name of the entry, and the instructions of every computation."""
    found: dict[str, list[str]] = {}
    entry = inside = ""
    for line in text.splitlines():
        if not line.startswith(" ") and (head := _HEAD.match(line)):
            inside = head[2]
            found[inside] = []
            entry = inside if head[1] else entry
        elif inside and line.startswith("  "):
            found[inside].append(line)
    return entry, found


def repetitions(text: str) -> tuple[dict[str, int], dict[str, list[str]]]:
    """How often a call runs each computation, and their instructions; a loop of unknown length counts once."""
    entry, found = computations(text)
    times: collections.Counter[str] = collections.Counter()

    def visit(name: str, factor: int) -> None:
        times[name] += factor
        for line in found.get(name, []):
            trips = _TRIPS.search(line) if " while(" in line else None
            inner = factor * (int(trips[1]) if trips else 1)
            for called in _CALLED.findall(line):
                for callee in re.findall(r"[\w.\-]+", called):
                    if callee in found:
                        visit(callee, inner)

    visit(entry, 1)
    return dict(times), found


def collectives(text: str) -> tuple[int, float]:
    r"""How many collectives a call of a program makes on each device, and the bytes that they hand over.

    >>> collectives("ENTRY %m (p: f32[8]) -> f32[8] {\n  %a = f32[8]{0} all-reduce(%p), to_apply=%add\n}")
    (1, 32.0)
    """
    times, found = repetitions(text)
    count, size = 0, 0.0
    for name, factor in times.items():
        for line in found[name]:
            if match := _COLLECTIVE.search(line):
                shapes = arrays(match[1])
                # The asynchronous form holds what goes in and what comes out.
                if match[3] and match[2] in ("all-gather", "collective-permute"):
                    shapes = shapes[len(shapes) // 2 :]
                count += factor
                size += factor * sum(logical for _, logical, _ in shapes)
    return count, size


def arrays(text: str) -> list[tuple[str, int, int]]:
    """Each array in a type: as written, its bytes, and its bytes in the tiles of its layout.

    >>> arrays("f32[100,64]{1,0:T(8,128)}")
    [('f32[100,64]{1,0:T(8,128)', 25600, 53248)]
    """
    found = []
    for match in _ARRAY.finditer(text):
        kind, sizes, order, first, second = match.groups()
        if kind not in WIDTH:
            continue
        shape = [int(size) for size in sizes.split(",") if size]
        tiles = [int(tile) for tile in (first, second) if tile]
        padded = list(shape)
        for axis, tile in zip((int(axis) for axis in (order or "").split(",") if axis), reversed(tiles), strict=False):
            padded[axis] = -(-padded[axis] // tile) * tile
        found.append((match[0], WIDTH[kind] * math.prod(shape), WIDTH[kind] * math.prod(padded)))
    return found


def worst_padding(text: str) -> dict[str, Any]:
    """The array, among those that a program holds in memory, that its tiles widen by most bytes."""
    _, found = computations(text)
    inside = {name for name in found if "fused" in name or "fusion" in name or "region" in name}
    worst = ("", 0, 0)
    for name in found.keys() - inside:
        for line in found[name]:
            result = line.split(" = ", 1)[-1].split(" ", 1)[0] if " = (" not in line else ""
            for each in arrays(result):
                worst = max(worst, each, key=lambda array: array[2] - array[1])
    shape, logical, padded = worst
    return {"padded_array": shape, "padded_mb": round((padded - logical) / 1e6, 3)}


def refused(text: str) -> dict[str, Any]:
    """What a target may lack or be slow at: float64, calls to the host, and calls to libraries, by name."""
    targets = sorted(set(_TARGET.findall(text)))
    host = [target for target in targets if re.search("callback|host|ffi_python", target, re.IGNORECASE)]
    if re.search(r" (infeed|outfeed)\(", text):
        host.append("infeed or outfeed")
    return {"float64": "f64[" in text, "host": host, "custom_calls": targets}


def flops(closed: Any) -> float:
    """Arithmetic of a traced program in products and convolutions, two for each multiplication and addition.

    A scan counts as often as it runs, a loop of unknown length once, a branch as its dearest.

    >>> flops(jax.make_jaxpr(lambda a, b: a @ b)(jax.numpy.ones((2, 3)), jax.numpy.ones((3, 4))))
    48.0
    """
    return _flops(closed.jaxpr)


def _flops(jaxpr: Any) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * inner
        elif name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            out = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / out
        elif name in _CONVOLUTIONS:
            shapes = [var.aval.shape for var in (*eqn.invars, *eqn.outvars)]
            _, kernel, out = (shapes[at] for at in _CONVOLUTIONS[name])
            total += 2.0 * math.prod(out) * math.prod(kernel[:3])
        elif name == "cond":
            total += max(_flops(branch.jaxpr) for branch in eqn.params["branches"])
        else:
            params = {"solve_it": eqn.params["jaxprs"].solve} if name == "custom_linear_solve" else eqn.params
            factor = params["length"] if name == "scan" else 1
            total += factor * sum(map(_flops, programs(params)))
    return total


def programs(params: Any) -> Iterator[Any]:
    """The programs that an equation holds, of a rule the one that is run."""
    for key, value in params.items():
        if key.startswith(("jvp", "fwd", "bwd")):
            continue
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "jaxpr") and hasattr(each.jaxpr, "eqns"):
                yield each.jaxpr
            elif hasattr(each, "eqns"):
                yield each
