"""One system at work: it answers what arrives, on an engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

from certaindex.equivalence import AnswerEquivalence
from certaindex.stopping import StopRule, parse_rule
from dynasor.allocator import Allocator, PerQuery
from dynasor.bench.offline import ask, make_program
from dynasor.bench.prompt_rank import PromptRank
from dynasor.bench.systems import OnlineSystem
from dynasor.bench.workload import Arrival
from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.forecast_wave import ForecastWave
from dynasor.observer import Observer
from dynasor.outcome import Outcome
from dynasor.ranking.prompt_text import prompt_text
from dynasor.ranking.scorer import LengthScorer
from dynasor.room import Room
from dynasor.runtime import Runtime
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.further_samples import HashableRule
from dynasor.scheduling.gang import Hints
from dynasor.suites import Suite

FILLED = 0.5
"""Share of the engine's places that queries may fill with more than they will probably need."""
_ONE_SAMPLE = "fixed:1"


def allocator_of(system: OnlineSystem, samples: int, places: int) -> Allocator:
    """A fresh allocator with the rule and the wave of a system.

    Args:
        system: how to serve.
        samples: full budget of a query.
        places: requests that the engine runs at once.
    """
    rule = parse_rule(system.stop_rule(samples))
    if system.wave == "forecast":
        room = Room(round(FILLED * places)) if system.fills else None
        return ForecastWave(cast(HashableRule, rule), room=room)
    return PerQuery(rule, samples if system.wave == "all" else system.wave)


def _changed(config: Config, algorithm: dict[str, Any]) -> Config:
    return config.model_copy(update={"algorithm": config.algorithm.model_copy(update=algorithm)})


class Service:
    """Answers arrivals by the rule, the wave and the hints of a system.

    A seed gives a question the same samples in all systems, so that answers compare in pairs.

    Args:
        engine: started, with the system's scheduler.
        system: how to serve.
        config: of the samples.
        suite: the questions.
        equivalence: groups answers.
        label: sets the requests apart from those of other services on this engine.
        repeat: another one, other samples.
        observer: is told what happens, or None.
        scorer: ranks questions for systems that take hints; None for none, and for `rank` a guess from
            the prompt's length.
    """

    def __init__(
        self,
        engine: Engine,
        system: OnlineSystem,
        config: Config,
        suite: Suite,
        equivalence: AnswerEquivalence,
        *,
        label: str,
        repeat: int = 0,
        observer: Observer | None = None,
        scorer: LengthScorer | None = None,
    ) -> None:
        self._engine = engine
        self._system = system
        weighing = {"weigh": "evidence" if system.weighs else None, "early_cut": system.cuts}
        self._config = _changed(config, weighing)
        self._chat_config = _changed(config, {"weigh": None, "samples": 1})
        self._suite = suite
        self._equivalence = equivalence
        self._label = label
        first = repeat * len(suite.queries)
        self._questions = {
            query.id: (first + place, query) for place, query in enumerate(suite.queries)
        }
        self._scorer = scorer if system.hints != "none" else None
        self._ranks = PromptRank()
        rule = parse_rule(system.stop_rule(config.algorithm.samples))
        self._queries = self._runtime(
            rule,
            allocator_of(system, config.algorithm.samples, engine.capacity().max_running),
            observer,
        )
        chat = parse_rule(_ONE_SAMPLE)
        self._chats = self._runtime(chat, PerQuery(chat, 1), observer)

    def _runtime(self, rule: StopRule, allocator: Allocator, observer: Observer | None) -> Runtime:
        hinted = self._system.hints == "forecast"
        limit = self._config.algorithm.max_tokens
        return Runtime(
            self._engine,
            allocator,
            observer=observer,
            forecast=Forecast(rule, limit=limit) if hinted else None,
            scorer=self._scorer,
        )

    async def answer(self, arrival: Arrival) -> Outcome:
        """Answer a query or a chat.

        Raises:
            EngineError: if the engine dies.
        """
        number, query = self._questions[arrival.question]
        chat = arrival.kind == "chat"
        program = make_program(
            self._chat_config if chat else self._config,
            self._suite,
            replace(query, id=f"{self._label}/{arrival.id}"),
            number,
            self._equivalence,
        )
        if self._system.hints == "rank" and self._scorer is None:
            rank = self._ranks.guess(len(query.question))
            self._engine.hint(program.id, Hints(rank=rank))
        when_due = self._system.when_due
        outcome = await (self._chats if chat else self._queries).solve(
            program,
            due=arrival.deadline if when_due else None,
            when_due=when_due,
            question=prompt_text(ask(query.question, self._config.instruction)),
        )
        votes = program.votes()
        if votes.n:
            self._ranks.learn(len(query.question), votes.total_tokens / votes.n)
        return outcome

    async def is_right(self, arrival: Arrival, outcome: Outcome) -> bool | None:
        """Whether the answer is the right one, None where that is not known."""
        gold = self._questions[arrival.question][1].gold
        if gold is None:
            return None
        value = outcome.answer.value
        return value is not None and await asyncio.to_thread(self._equivalence.same, gold, value)
