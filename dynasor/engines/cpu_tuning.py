"""Make vLLM fast on a CPU: preload two libraries, bind threads, size the KV cache.

A faster allocator (tcmalloc), Intel's OpenMP and bound threads were worth five times the tokens a
second on a two-core machine. vLLM reads these settings from the environment of the processes that
it starts, so setting them here, before the engine starts, is enough: this process need not restart.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import psutil

GIB = 1 << 30
KV_SHARE = 0.25
"""Of the free memory; the model itself, activations and other programs need the rest."""
LARGEST_KV_GIB = 64
TINY_MODEL_BYTES = 50 << 20
BLOCK_SIZE_CPU = 32
"""Tokens a KV block; vLLM's 128 for CPU shares nothing between siblings with short prompts."""
IN_ENGINE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Computes in the engine's process. vLLM takes another one for the model on CPU, to bind its threads."""
FLOAT32_SHARE = 0.4
"""Of the free memory that the weights of a model may take in float32."""

_TCMALLOC = (
    "/usr/lib/*/libtcmalloc_minimal.so.4",
    "/usr/lib*/libtcmalloc_minimal.so.4",
    "/usr/lib/*/libtcmalloc.so.4",
    "/usr/lib*/libtcmalloc.so.4",
    f"{sys.prefix}/lib/libtcmalloc*.so*",
)
_IOMP = (f"{sys.prefix}/lib/libiomp5.so", "/usr/lib/*/libiomp5.so", "/opt/intel/**/libiomp5.so")


@dataclass(frozen=True, slots=True)
class CpuTuning:
    """What was set, and what would help if it were installed.

    Attributes:
        environment: variables that were set, name -> value.
        missing: libraries that were not found, with the command that installs them.
        dtype: in which the model computes.
        tiny_model: whether the model is so small that one thread computes.
    """

    environment: dict[str, str]
    missing: tuple[str, ...]
    dtype: str
    tiny_model: bool

    def line(self) -> str:
        """One line for the user."""
        libraries = [
            name.split(".")[0]
            for name in map(os.path.basename, self.environment.get("LD_PRELOAD", "").split(":"))
            if name
        ]
        parts = [f"preloading {' and '.join(libraries)}"] if libraries else []
        threads = self.environment.get("VLLM_CPU_OMP_THREADS_BIND")
        if "OMP_NUM_THREADS" in self.environment:
            parts.append(f"{self.environment['OMP_NUM_THREADS']} thread for a tiny model")
        elif threads == "nobind":
            parts.append("threads unbound, for the cores are busy")
        elif threads:
            parts.append(f"threads bound to cores {threads}")
        if "VLLM_CPU_KVCACHE_SPACE" in self.environment:
            parts.append(f"{self.environment['VLLM_CPU_KVCACHE_SPACE']} GiB for the KV cache")
        if self.dtype == "float32":
            parts.append("float32, for this CPU emulates bfloat16")
        text = "CPU: " + (", ".join(parts) or "settings of the environment kept")
        if self.missing:
            text += f"; slower than need be without {' and '.join(self.missing)}"
        return text


def tune(
    weights_bytes: float,
    environment: MutableMapping[str, str] | None = None,
    *,
    kv_gib: int | None = None,
) -> CpuTuning:
    """Set what vLLM needs to be fast here. A variable that the user has set is left alone.

    With a tiny model one thread computes: waking a second one costs more than it does, and the other
    cores have the rest of the engine to run. Where the CPU emulates bfloat16, float32 is twice as
    fast, and is taken if the weights then fit well into the memory.

    Args:
        weights_bytes: size of the model in bfloat16; infinite if not known.
        environment: where to set it; the process environment by default.
        kv_gib: size of the KV cache, GiB; None takes a quarter of the free memory.
    """
    tiny_model = weights_bytes < TINY_MODEL_BYTES
    fits = 2 * weights_bytes < FLOAT32_SHARE * psutil.virtual_memory().available
    dtype = "float32" if fits and not has_bfloat16() else "bfloat16"
    env = os.environ if environment is None else environment
    wanted: dict[str, str] = {}
    missing = []
    preload = [part for part in env.get("LD_PRELOAD", "").split(":") if part]
    for name, patterns, command in (
        ("libtcmalloc", _TCMALLOC, "tcmalloc (apt-get install libtcmalloc-minimal4)"),
        ("libiomp5", _IOMP, "libiomp5 (pip install intel-openmp)"),
    ):
        if any(name in part for part in preload):
            continue
        found = _first(patterns)
        if found is None:
            missing.append(command)
        else:
            preload.append(found)
    if preload:
        wanted["LD_PRELOAD"] = ":".join(preload)
    if "VLLM_CPU_OMP_THREADS_BIND" not in env:
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = "nobind" if tiny_model else _binding()
        if tiny_model:
            wanted["OMP_NUM_THREADS"] = env.get("OMP_NUM_THREADS", "1")
        if wanted["VLLM_CPU_OMP_THREADS_BIND"] == "nobind":
            # Threads that spin while they wait starve each other on busy cores.
            wanted["KMP_BLOCKTIME"] = env.get("KMP_BLOCKTIME", "0")
    if "VLLM_CPU_KVCACHE_SPACE" not in env:
        wanted["VLLM_CPU_KVCACHE_SPACE"] = str(kv_gib or _free_share_gib())
    env.update(wanted)
    return CpuTuning(wanted, tuple(missing), dtype, tiny_model)


def has_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX512-BF16, AMX or ARM); others emulate it.

    True where the system does not say.
    """
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            return "bf16" in file.read(1 << 20)
    except OSError:
        return True


def _first(patterns: tuple[str, ...]) -> str | None:
    for pattern in patterns:
        for path in sorted(glob.glob(pattern, recursive=True)):
            return path
    return None


def _binding() -> str:
    """All cores that this process may use, or `nobind` where others keep them busy.

    On cores that another job used, an engine with bound threads took ten times as long to start.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not cores or os.getloadavg()[0] > 0.5 * len(cores):
        return "nobind"
    return ",".join(map(str, cores))


def _free_share_gib() -> int:
    free = psutil.virtual_memory().available / GIB
    return max(1, min(LARGEST_KV_GIB, int(free * KV_SHARE)))


def cpu_arguments(tuning: CpuTuning | None) -> dict[str, Any]:
    """Arguments of a vLLM engine on a CPU."""
    arguments: dict[str, Any] = {
        "dtype": tuning.dtype if tuning else "bfloat16",
        "block_size": BLOCK_SIZE_CPU,
        "enforce_eager": True,  # compiling takes longer than most runs on a CPU
    }
    if tuning and tuning.tiny_model:
        # No threads to bind: a process less to start, and to wait for at every step.
        arguments["distributed_executor_backend"] = IN_ENGINE
    return arguments
