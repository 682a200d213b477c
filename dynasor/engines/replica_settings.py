"""Size and speed of one simulated replica of an engine."""

from __future__ import annotations

from dataclasses import dataclass

from dynasor.engines.step_time import StepTime


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Size and speed of one replica.

    Attributes:
        step_time: seconds of a step.
        max_running: requests in the batch at once.
        max_batched_tokens: tokens that one step computes at most.
        kv_blocks: blocks of the KV cache that requests can use.
        block_size: tokens a block.
        fit_memory: admit a request only if the batch with it is expected to fit in the KV cache to its
            end, as `dynasor.scheduling.vllm_scheduler` does.
    """

    step_time: StepTime
    max_running: int = 128
    max_batched_tokens: int = 8192
    kv_blocks: int = 1 << 20
    block_size: int = 16
    fit_memory: bool = False

    def __post_init__(self) -> None:
        for name in ("max_running", "max_batched_tokens", "kv_blocks", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
