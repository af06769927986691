"""Machines that programs are compiled for without being there: slices of TPUs by libtpu, GPUs by a description.

Needs the extra ``aot``. Import this before anything touches a device: the CPU is then the only one in this process.
"""

import importlib.util
import os
from typing import Any, NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"  # CUDA's plugin reads it too, and looks for no driver.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu would look for its cloud.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # It has no chip to itself here.

import jax
from jax.experimental import topologies

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_compilation_cache", False)  # No program of another machine can be read back here.

#: What XLA must know of an H200 SXM to compile for it: NVIDIA's data sheet, and CUDA's tables of capability 9.0.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 device_memory_size: 150754820096
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H200"
"""


class Target(NamedTuple):
    """A machine.

    Attributes:
      platform: ``tpu`` or ``cuda``.
      topology: Topology of a TPU slice, or of GPUs as processes x hosts x devices.
      chips: Devices that XLA sees; of a TPU7x chip there are two.
      gigabytes: Memory of one, in 10^9 bytes.
    """

    platform: str
    topology: str
    chips: int
    gigabytes: float


#: Memory is that of the makers' data sheets: 16, 32, 95 and 96 GiB, and what an H200 reports.
TARGETS = {
    "v5e-16": Target("tpu", "v5e:4x4", 16, 17.2),
    "v6e-8": Target("tpu", "v6e:2x4", 8, 34.4),
    "v5p-8": Target("tpu", "v5p:2x2x2", 8, 102.0),
    "tpu7x-8": Target("tpu", "tpu7x:2x2x1", 8, 103.1),
    "1 x H200": Target("cuda", "1x1x1", 1, 150.8),
    "8 x H200": Target("cuda", "1x1x8", 8, 150.8),
}


def compilable(platform: str) -> bool:
    """Whether this installation has the platform's compiler."""
    return importlib.util.find_spec({"tpu": "libtpu", "cuda": "jax_plugins.xla_cuda12"}[platform]) is not None


def mesh(name: str) -> jax.sharding.Mesh:
    """The devices of a target as a mesh of one axis, ``data``.

    Raises:
      ModuleNotFoundError: The extra ``aot`` is not installed.
    """
    target = TARGETS[name]
    if not compilable(target.platform):
        raise ModuleNotFoundError(f"no compiler for {name} here; install the extra aot (pip install '.[aot]')")
    options: dict[str, Any] = {"topology_name": target.topology}
    if target.platform == "cuda":
        options = {"topology_name": "h200", "target_config": H200, "topology": target.topology}
    found = topologies.get_topology_desc(platform=target.platform, **options)
    axes = (jax.sharding.AxisType.Auto,)
    devices = topologies.make_mesh(found, (target.chips,), ("data",)).devices
    return jax.sharding.Mesh(devices, ("data",), axis_types=axes)
