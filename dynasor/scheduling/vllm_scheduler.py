"""The gang scheduler inside vLLM: `scheduler_cls="dynasor.scheduling.vllm_scheduler.GangScheduler"`.

Waiting requests are admitted in the order of a policy, gang by gang; when memory runs out, the victims
are members of the gang that the policy ranks last. Running requests keep their place otherwise. Hints
come with the requests (`extra_args`, in HTTP `vllm_xargs`; see `dynasor.scheduling.gang`) and can be
updated through `EngineCore.gang_call`. Settings: `additional_config={"dynasor": {"policy": ...,
"patience": ..., "turns": ...}}`, the `[scheduler]` section of the configuration.

Only methods and attributes named in `vllm_hooks.LEANS_ON` are used; all else is vLLM's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request, RequestStatus

from dynasor.scheduling.aging import aging_of
from dynasor.scheduling.gang import Hints, read_hints
from dynasor.scheduling.memory import expected_left, peak_tokens
from dynasor.scheduling.policies import parse_policy
from dynasor.scheduling.queue import GangQueue
from dynasor.scheduling.vllm_hooks import check_vllm, scheduler_settings
from dynasor.scheduling.vllm_steps import CountingScheduler

RESORT = 1.0
"""Seconds after which the running requests are put in order though nothing happened: gangs age."""


class GangScheduler(CountingScheduler):
    """vLLM's scheduler with gangs in the order of a policy.

    Raises:
        RuntimeError: if this vLLM lacks something that is leant on.
        ConfigError: if a setting is wrong.
    """

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        check_vllm()
        settings = scheduler_settings(vllm_config.additional_config)
        super().__init__(vllm_config, *args, **kwargs)
        self._gangs = GangQueue[Request](
            parse_policy(settings.policy),
            monotonic,
            aging=aging_of(settings),
            ready=self._may_prefill,
        )
        self.waiting = _Waiting(self._gangs, self._admit, self._has_room)
        self._fits_memory = settings.fit_memory
        self._prefilling: dict[str, Request] = {}  # gang -> member with a long prompt in parts
        self._sorted = 0.0
        self._part = self.scheduler_config.long_prefill_token_threshold

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """One step: victims in order, then vLLM's scheduling."""
        gangs = self._gangs
        gangs.pace = self.pace or gangs.pace
        gangs.reconsider()
        if self._memory_may_run_out():
            self._order_running()
        return super().schedule(throttle_prefills)

    def _memory_may_run_out(self) -> bool:
        """Whether the step could need more KV blocks than are free."""
        tokens = self.max_num_scheduled_tokens + len(self.running) * self.block_size
        return bool(
            self.kv_cache_manager.block_pool.get_num_free_blocks() * self.block_size < tokens
        )

    def _order_running(self) -> None:
        """Victims last: vLLM preempts from the end of this list."""
        now = monotonic()
        if self._gangs.order_changed or now > self._sorted + RESORT:
            self.running.sort(key=self._gangs.standing)
            self._gangs.order_changed, self._sorted = False, now

    def _admit(self, request: Request) -> None:
        """Where vLLM limits the part of a prompt in a step, note whose prompt is under way."""
        if self._part:
            self._prefilling[self._gangs.gang_of(request).id] = request

    def _may_prefill(self, request: Request) -> bool:
        """False while a sibling computes, in parts, a prefix that this request would share.

        Where vLLM limits the part of a prompt in a step, siblings would otherwise compute the same
        tokens side by side.
        """
        sibling = self._prefilling.get(self._gangs.gang_of(request).id)
        if sibling is None or sibling is request:
            return True
        if sibling.num_tokens - sibling.num_computed_tokens <= self._part:
            return True  # running requests go first: it will be in the cache in this very step
        block = sibling.num_computed_tokens // self.hash_block_size
        ours, theirs = request.block_hashes, sibling.block_hashes
        return not (block < min(len(ours), len(theirs)) and ours[block] == theirs[block])

    def _has_room(self, request: Request) -> bool:
        """Whether the batch with this request too is expected to fit in the KV cache to its end."""
        if not self._fits_memory or not self.running:
            return True
        pool = self.kv_cache_manager.block_pool
        free = pool.get_num_free_blocks() * self.block_size
        typical = self._gangs.typical
        whole = request.num_tokens + typical
        if free > whole + len(self.running) * typical:
            return True  # even if all grew from here to their usual length
        batch = [
            (
                float(member.num_output_tokens),
                expected_left(
                    member.num_output_tokens,
                    typical,
                    member.max_tokens - member.num_output_tokens,
                ),
            )
            for member in self.running
        ]
        gang = self._gangs.gang_of(request)
        prompt = request.num_tokens - request.num_output_tokens if not gang.running else 0
        kept = prompt + request.num_output_tokens
        rest = expected_left(
            request.num_output_tokens, typical, request.max_tokens - request.num_output_tokens
        )
        return peak_tokens(kept, [*batch, (kept, rest)]) <= float(free)

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        finished = request.status in (
            RequestStatus.FINISHED_STOPPED,
            RequestStatus.FINISHED_LENGTH_CAPPED,
        )
        if self._gangs.holds(request):
            gang = self._gangs.gang_of(request).id
            if self._prefilling.get(gang) is request:
                del self._prefilling[gang]
            self._gangs.end(request, request.num_output_tokens, finished)
        return super()._free_request(request, *args, **kwargs)

    def gang_hints(self, news: dict[str, dict[str, float]]) -> None:
        """News of gangs, each flat as a request would carry them; see `read_hints`."""
        for gang, hints in news.items():
            self._gangs.hint(gang, read_hints(hints)[1])

    def gang_order(self) -> list[str]:
        """Ids of the waiting requests' gangs in the present order, to look into a live engine."""
        return [self._gangs.gang_of(request).id for request in self._gangs]


class _Waiting(RequestQueue):
    """vLLM's view of a gang queue."""

    def __init__(
        self,
        gangs: GangQueue[Request],
        admit: Callable[[Request], None],
        has_room: Callable[[Request], bool],
    ) -> None:
        self._gangs = gangs
        self._admit = admit
        self._has_room = has_room

    def add_request(self, request: Request) -> None:
        if self._gangs.holds(request):
            self._gangs.give_back(request)
            return
        parameters = request.sampling_params
        gang, hints = read_hints(parameters.extra_args) if parameters else (None, Hints())
        self._gangs.add(request, gang, request.request_id, hints)

    def pop_request(self) -> Request:
        request = self._gangs.take()
        self._admit(request)
        return request

    def peek_request(self) -> Request:
        request = self._gangs.peek()
        if request is None:
            raise IndexError("peek from a queue where nothing is ready")
        return request

    def prepend_request(self, request: Request) -> None:
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.add_request(request)

    def remove_request(self, request: Request) -> None:
        self._gangs.end(request, request.num_output_tokens)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            if request in self._gangs:
                self.remove_request(request)

    def __bool__(self) -> bool:
        request = self._gangs.peek()
        return request is not None and self._has_room(request)

    def __len__(self) -> int:
        return len(self._gangs)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._gangs)
