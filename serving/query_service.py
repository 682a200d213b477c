"""Runs the plans of clients on the engine, each with a runtime of its own.

A query that goes wrong, is cut or is hostile so touches no other one: they share the engine, the
processes that compare answers (each query within its allowance), and what is learnt about lengths, and
nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from opentelemetry import trace
from opentelemetry.trace import Span, Tracer

from algorithms.program import Program, Request
from certaindex.equivalence import AnswerEquivalence, ExactEquivalence
from certaindex.equivalence_share import QueryShare
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.config import EMBEDDED, Config
from dynasor.engines.base import Engine
from dynasor.errors import ConfigError, EngineError
from dynasor.ranking.prompt_text import prompt_text
from dynasor.ranking.scorer import LengthScorer
from dynasor.rewards.build import build_reward, has_reward
from dynasor.rewards.engine import RewardedEngine
from dynasor.room import Room
from dynasor.runtime import Runtime
from dynasor.scheduling.forecast import Forecast
from serving.api_errors import ApiError
from serving.audits import Audits
from serving.engine_guard import LOST, EngineGuard
from serving.forecasts import Forecasts
from serving.front_door import Visit
from serving.live_query import LiveQuery
from serving.metrics import Metrics
from serving.planned_program import program_of
from serving.promises import Promises
from serving.reasoning_plan import Plan

logger = logging.getLogger(__name__)

SHOWN_ENDED = 50
"""Queries that the live page still shows after their end."""
RETRY_AFTER = 5.0


class QueryService:
    """All queries of the server.

    Attributes:
        engine: the guarded engine, which also scores where the server has a reward model; the caller
            starts and closes it.
        room: places of the engine that queries may fill.
        live: queries at work, by id.
        idle: whether there is none.

    Args:
        guard: the engine.
        config: of the server; may be replaced while it runs, queries go on with what they came to.
        equivalence: groups answers.
        metrics: are told of each query.
        tracer: of one span a query.
        promises: to the classes of queries; may be replaced like the configuration.
        scorer: ranks queries by their prompt, or None.
    """

    def __init__(
        self,
        guard: EngineGuard,
        config: Config,
        equivalence: AnswerEquivalence,
        metrics: Metrics,
        tracer: Tracer,
        promises: Promises,
        scorer: LengthScorer | None = None,
    ) -> None:
        self.guard = guard
        self.engine: Engine = guard
        if has_reward(config):
            batch = config.algorithm.reward.batch
            self.engine = RewardedEngine(guard, build_reward(config), batch=batch)
        self.config = config
        self.promises = promises
        self._forecasts = Forecasts()
        self.audits = Audits(guard, self._forecast, equivalence, metrics.tokens.labels("audit").inc)
        self._equivalence = equivalence
        self._metrics = metrics
        self._tracer = tracer
        self._scorer = scorer
        self._runtimes: dict[str, Runtime] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.room = Room(0)
        self.live: dict[str, LiveQuery] = {}
        self.idle = asyncio.Event()
        self.idle.set()
        self.ended: deque[LiveQuery] = deque(maxlen=SHOWN_ENDED)

    @property
    def served(self) -> str:
        """Name of the model for clients."""
        if self.config.server.model_name is not None:
            return self.config.server.model_name
        if self.config.is_embedded:
            return EMBEDDED
        model = self.guard.capacity().model
        return Path(model).name if Path(model).is_dir() else model

    async def check(self, plan: Plan) -> None:
        """Refuse what the engine or the program would refuse, before anything is begun.

        Raises:
            ApiError: 400 naming the field, or 503 while there is no engine.
        """
        if not self.guard.ready:
            raise ApiError(
                503,
                "the engine is starting; try again soon",
                code="engine_starting",
                retry_after=RETRY_AFTER,
            )
        try:
            program_of(plan, ExactEquivalence())
        except ConfigError as error:
            raise ApiError(400, f"dynasor: {error}", param="dynasor") from None
        field = "messages" if isinstance(plan.prompt, tuple) else "prompt"
        if plan.sampling.seed is not None and not self.guard.capacity().supports_seed:
            raise ApiError(400, "seed: this engine cannot repeat its samples", param="seed")
        try:
            asked = Request("measure", plan.id, plan.prompt, plan.sampling, prefix=plan.prefix)
            tokens = await self.guard.measure(asked)
        except ValueError as error:
            param = "seed" if "seed" in str(error) else field
            code = "context_length_exceeded" if "tokens" in str(error) else None
            raise ApiError(400, f"{param}: {error}", param=param, code=code) from None
        except Exception as error:  # a chat template may fail in any way on odd messages
            raise ApiError(
                400, f"{field}: the model's chat template refuses them: {error}", param=field
            ) from None
        most = self.config.server.max_prompt_tokens
        if most is not None and tokens is not None and tokens > most:
            raise ApiError(
                400,
                f"{field}: {tokens} tokens are more than this server's {most}",
                param=field,
                code="context_length_exceeded",
            )

    def admit(self, plan: Plan) -> Plan:
        """The plan with the setting that its class has now.

        Raises:
            ApiError: 429 if it would be answered later than was promised to its class.
        """
        try:
            return self.promises.admit(plan)
        finally:
            self._make_room()

    def _make_room(self) -> None:
        """Audits work where no query needs what they would take."""
        if self.promises.overloaded:
            self.audits.pause()
        else:
            self.audits.go_on()

    @asynccontextmanager
    async def running(self, plan: Plan, visit: Visit) -> AsyncIterator[LiveQuery]:
        """A query at work; leaving before its end cuts all that it has in the engine."""
        program = program_of(plan, QueryShare(self._equivalence))
        query = LiveQuery(plan, program, visit.key.name)
        span = self._tracer.start_span(
            "query", attributes={"query": plan.id, "algorithm": plan.algorithm}
        )
        with trace.use_span(span, end_on_exit=False):
            task = asyncio.create_task(self._solve(plan, program, query))
        self.live[plan.id] = query
        self.idle.clear()
        try:
            yield query
        finally:
            task.cancel()
            self._ending.add(task)  # Python itself keeps no hold of a task
            task.add_done_callback(self._ending.discard)
            try:
                # Ray Serve cancels who serves a client that has left, also while this waits: then the
                # task still cuts what it has in the engine. (`gather` would cancel it once more.)
                await asyncio.wait([task])
            finally:
                self._ended(query, program, visit, span)

    def _ended(self, query: LiveQuery, program: Program, visit: Visit, span: Span) -> None:
        """Nothing of a query runs any more: count it and let go of it."""
        del self.live[query.plan.id]
        if not self.live:
            self.idle.set()
        query.ended = True
        self.ended.append(query)
        self._metrics.query_ended(query)
        self._note(query, visit)
        span.set_attribute("samples", program.votes().n)
        span.set_attribute("stopped", query.outcome.reason if query.outcome else "left")
        span.end()

    def _note(self, query: LiveQuery, visit: Visit) -> None:
        """Charge the key, and say in the log what became of the query."""
        outcome = query.outcome
        spent = outcome.bill.output + outcome.bill.prompt if outcome else query.tokens_now
        visit.use.spend(spent)
        visit.fields |= {
            "query": query.plan.id,
            "algorithm": query.plan.algorithm,
            "samples": query.program.votes().n,
            "stopped": outcome.reason if outcome else "left",
            "tokens": spent,
        }
        if self.config.server.log_prompts:
            visit.fields |= {"prompt": query.plan.prompt, "answer": query.chosen_text()}

    async def _solve(self, plan: Plan, program: Program, query: LiveQuery) -> None:
        # The engine and the configuration may have changed since the last query.
        places = self.config.allocator.fill * self.guard.capacity().max_running
        self.room.places = round(places)
        promises, kept = self.promises, self.audits.keep(plan, self.config.slo.watch.audits)
        work = promises.begun(plan)
        runtime = Runtime(
            self.engine,
            PerQuery(
                parse_rule(f"fixed:{plan.samples}" if plan.plain else plan.rule),
                plan.samples if plan.plain else plan.wave,
                tokens=plan.tokens,
                room=self.room,
                fills=plan.fills,
            ),
            in_order=plan.in_order,
            log=kept,
            observer=query,
            forecast=self._forecast(plan),
            scorer=self._scorer,
        )
        self._runtimes[plan.id] = runtime
        try:
            await runtime.solve(
                program,
                deadline=plan.deadline,
                due=plan.deadline if plan.in_hurry else None,
                question=prompt_text(plan.prompt),
            )
        except Exception as error:
            logger.exception("query %s failed", plan.id)
            query.failed(error)
        finally:
            del self._runtimes[plan.id]
            tokens = query.outcome.bill.output if query.outcome else query.tokens_now
            promises.ended(plan, work, program, query.outcome, tokens)
            self._make_room()
            if kept is not None:
                seconds = self.config.server.max_seconds
                self.audits.begin(plan, kept, query.outcome, seconds=seconds)

    def _forecast(self, plan: Plan) -> Forecast:
        return self._forecasts.of(plan, self.config)

    def conclude(self) -> None:
        """End all queries with their best answers so far."""
        self.audits.drop()
        for runtime in list(self._runtimes.values()):
            runtime.conclude()

    def longest_wait(self) -> float:
        """Seconds that the query has waited which has waited longest for its first sample or token."""
        now = monotonic()
        waits = [
            now - query.arrival
            for query in self.live.values()
            if query.first_token is None and not query.over.is_set()
        ]
        return max(waits, default=0.0)


def failure_of(query: LiveQuery) -> ApiError | None:
    """What to tell the client of a query that has no answer at all; None where it has one."""
    outcome = query.outcome
    if isinstance(query.error, EngineError):
        return ApiError(503, f"{LOST}; try again", code="engine_lost", retry_after=RETRY_AFTER)
    if outcome is None:
        return ApiError(500, "the server has met a bug of its own", code="internal")
    if outcome.reason != "failed":
        return None
    error = outcome.errors[0] if outcome.errors else "unknown error"
    if error.startswith(LOST):
        return ApiError(503, error, code="engine_lost", retry_after=RETRY_AFTER)
    return ApiError(502, f"the engine failed the query: {error}", code="engine_failed")
