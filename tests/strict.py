"""Pytest plugin: the numerics under which every test and doctest runs, set before anything imports jax.

Loaded by ``-ptests.strict`` (pyproject.toml), so that a single file or doctest runs under the same settings as the
whole suite.
"""

import os
from pathlib import Path

# Eight fake CPU devices, so that code which must not care about sharding is tested on one and on eight.
_DEVICES = "--xla_force_host_platform_device_count=8"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()

import jax  # noqa: E402 - after XLA_FLAGS

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A second run takes its programs from here instead of compiling them anew (about half the time), and workers take each
# other's. Two may meet at one entry, half written: JAX warns and compiles, see filterwarnings in pyproject.toml.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).resolve().parents[1] / ".jax_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

#: Resident memory above which compiled programs are dropped, bytes: two workers and what they start share 24 GB.
_PLENTY = 4 * 2**30


def pytest_runtest_teardown(item, nextitem):
    """Drops compiled programs between modules once a worker has grown large."""
    if nextitem is None or nextitem.path == item.path or not Path("/proc/self/statm").exists():
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    if pages * os.sysconf("SC_PAGE_SIZE") > _PLENTY:
        jax.clear_caches()
