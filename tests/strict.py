"""Pytest plugin: the numerics under which every test and doctest runs, set before anything imports jax.

Loaded by ``-ptests.strict`` (pyproject.toml), so that a single file or doctest runs under the same settings as the
whole suite.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Modules make no garbage as they are imported, and looking for it takes a sixth of that time. Python looks again from
# the first test on.
gc.disable()

# Eight fake CPU devices, so that code which must not care about sharding is tested on one and on eight.
FLAGS = ["--xla_force_host_platform_device_count=8"]
# A test runs a program once or twice, so that compiling it costs more than running it. XLA's optimiser stays off, which
# makes compiling five times as fast; the fixture `optimised` turns it on for tests that compute more than they compile.
# TEST_COMPILER=users compiles as users do; the weekly run of the gate sets it.
COMPILER = os.environ.get("TEST_COMPILER", "quick")
if COMPILER == "quick":
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # Nor is a program split into parts that threads compile side by side: for small ones that costs a third more.
    FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # a flag that XLA does not know ends the process
        FLAGS.append("--xla_cpu_use_fusion_emitters=false")
elif COMPILER != "users":
    raise ValueError(f"TEST_COMPILER is quick or users, got {COMPILER!r}")
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in FLAGS if flag.split("=")[0] not in given)]).strip()

# A second run takes its programs from here instead of compiling them anew (about half the time), and workers and
# subprocesses take each other's. Two may meet at one entry, half written: JAX warns and compiles, see filterwarnings in
# pyproject.toml.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).resolve().parents[1] / ".jax_cache")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"  # Faster ones are compiled sooner than read.

import jax  # noqa: E402 - after what it reads from the environment

from scripts.harness import compiling  # noqa: E402
from tests import checked as checked  # noqa: E402 - from here on --jaxtyping-packages decorates with it
from tests import moving  # noqa: E402

compiling.share_context()
if COMPILER == "quick":
    moving.by_numpy()
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

#: Programs after which they are dropped: with all that a worker makes alive, compiling takes twice as long at the end.
_MANY = 1500
_made = 0


def one_device() -> dict[str, str]:
    """The environment of a process that has one device and compiles as this one does."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    return {**os.environ, "XLA_FLAGS": " ".join(flags)}


def _count(event, seconds, **about):
    global _made
    _made += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_count)


def pytest_collection_finish(session):
    """Makes Python look less often for garbage among JAX's many small objects: a fifth of the time of tracing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    gc.enable()


def pytest_runtest_teardown(item, nextitem):
    """Drops compiled programs between modules once there are many."""
    global _made
    if nextitem is None or nextitem.path == item.path:
        return
    compiling.share_context()  # A new one, without the constants of the programs so far.
    if _made > _MANY:
        _made = 0
        jax.clear_caches()
