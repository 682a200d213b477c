"""vLLM's own scheduler, counting: what each step held, what was preempted and computed twice.

The order of requests is vLLM's. It serves as the baseline of benchmarks and for calibration, and the
gang scheduler builds on it.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any, NamedTuple

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.metrics.stats import PrefixCacheStats
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from dynasor.scheduling.vllm_hooks import end_with_parent

LONGEST_LOG = 100_000
"""Steps that are kept; older ones are dropped."""
_PACE_MEMORY = 0.99


class Batch(NamedTuple):
    """What one step computed."""

    decoding: int
    prefill_tokens: int
    context_tokens: int


class CountingScheduler(AsyncScheduler):
    """vLLM's scheduler with counters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        end_with_parent()
        self.pace = 0.0
        """Seconds a step, a running average; 0 before the first."""
        self._steps: deque[tuple[float, int, int, int]] = deque(maxlen=LONGEST_LOG)
        self._logging = False
        self._begun: float | None = None  # start of the last step, if the next follows at once
        self._batch: Batch | None = None
        # vLLM counts what its prefix cache holds only where it keeps a log; we count without one.
        if self.kv_cache_manager.prefix_cache_stats is None:
            self.kv_cache_manager.log_stats = True
            self.kv_cache_manager.prefix_cache_stats = PrefixCacheStats()
        self._told_prefixes = (0, 0)
        self._reset()

    def _reset(self) -> None:
        self._prefixes_before = self._prefixes()
        self._count = 0
        self._preemptions = 0
        self._recomputed = 0
        self._kv_peak = 0.0
        self._kv_sum = 0.0
        self._running_sum = 0

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """One step, counted."""
        now = monotonic()
        if self._begun is not None:
            self._time_step(now - self._begun)
        output: SchedulerOutput = super().schedule(throttle_prefills)
        self._begun = now if output.total_num_scheduled_tokens else None
        if self._begun is not None:
            self._count += 1
            use = self.kv_cache_manager.usage
            self._kv_peak = max(self._kv_peak, use)
            self._kv_sum += use
            self._running_sum += len(self.running)
            self._batch = self._batch_of(output) if self._logging else None
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> Any:
        """vLLM's, and a look whether the next step follows at once."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        if not self.running and not len(self.waiting):
            self._begun = None  # the engine will wait for a request: that is no step's time
        return outputs

    def _time_step(self, seconds: float) -> None:
        self.pace = (
            _PACE_MEMORY * self.pace + (1 - _PACE_MEMORY) * seconds if self.pace else seconds
        )
        if self._batch is not None:
            self._steps.append((seconds, *self._batch))

    def _batch_of(self, output: SchedulerOutput) -> Batch:
        decoding = prefill = context = 0
        for name, tokens in output.num_scheduled_tokens.items():
            request = self.requests[name]
            # vLLM has already counted this step's tokens as computed.
            if tokens == 1 and request.num_output_tokens:
                decoding += 1
            else:
                prefill += tokens
            context += request.num_computed_tokens
        return Batch(decoding, prefill, context)

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self._preemptions += 1
        self._recomputed += request.num_computed_tokens
        super()._preempt_request(request, *args, **kwargs)

    def make_stats(self, *args: Any, **kwargs: Any) -> Any:
        """vLLM's, which forgets its counts of the prefix cache with each telling: they are kept."""
        before = self._prefixes()
        stats = super().make_stats(*args, **kwargs)
        if stats is not None:  # None where it keeps no log: then it goes on counting
            self._told_prefixes = before
        return stats

    def _prefixes(self) -> tuple[int, int]:
        """Tokens that vLLM has looked up in its prefix cache, and that it found there."""
        queries, hits = self._told_prefixes
        now = self.kv_cache_manager.prefix_cache_stats
        return queries + now.queries, hits + now.hits

    # Asked by name through EngineCore.gang_call, see vllm_hooks.

    def gang_counters(self, reset: bool = False) -> dict[str, float]:
        """Counters since the last reset: steps, preemptions, tokens lost to them, KV use (shares).

        `prefix_queries` and `prefix_hits` are vLLM's own counts, in tokens: of prompts that were looked
        up in the prefix cache when they were first admitted, and of what was found there.
        """
        steps = max(self._count, 1)
        queries, hits = (
            now - then for now, then in zip(self._prefixes(), self._prefixes_before, strict=True)
        )
        counters = {
            "steps": self._count,
            "preemptions": self._preemptions,
            "recomputed_tokens": self._recomputed,
            "kv_peak": self._kv_peak,
            "kv_mean": self._kv_sum / steps,
            "running_mean": self._running_sum / steps,
            "running": len(self.running),
            "waiting": len(self.waiting),
            "kv_now": self.kv_cache_manager.usage,
            "prefix_queries": queries,
            "prefix_hits": hits,
        }
        if reset:
            self._reset()
        return counters

    def gang_steps(self) -> list[tuple[float, int, int, int]]:
        """Steps since the last call (seconds, decoding, prefill tokens, context tokens).

        The first call begins the log.
        """
        steps = list(self._steps)
        self._steps.clear()
        self._logging = True
        return steps
