"""One question from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynasor.config import Config
    from dynasor.engines.base import Engine
    from dynasor.observer import Observer
    from dynasor.outcome import Outcome

LONGEST_QUESTION = 100_000
"""Characters; more than any prompt of the models that this is for."""


async def certain_answer(
    question: str,
    *,
    samples: int | None = None,
    rule: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    config: Config | None = None,
    engine: Engine | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Answer a question by sampling until the answer is certain.

    Args:
        question: what is asked.
        samples: the full budget.
        rule: stop rule; see `certaindex.stopping`.
        model: folder or hub name, or the name on the server; the embedded model if None.
        base_url: an OpenAI-compatible server to ask in place of vLLM here.
        config: all settings; the arguments above override it only where it is not given.
        engine: a started engine, which stays open; by default one is started and closed. It must
            score where the program asks for rewards (`dynasor.rewards.build.with_rewards`).
        observer: is told what happens.

    Raises:
        ConfigError: if the question is empty or a setting is wrong.
        EngineError: if the engine cannot serve.
    """
    from dynasor.config import load_config
    from dynasor.engines.build import build_engine
    from dynasor.errors import ConfigError
    from dynasor.rewards.build import with_rewards

    if not question.strip():
        raise ConfigError("the question is empty")
    if len(question) > LONGEST_QUESTION:
        raise ConfigError(f"the question is longer than {LONGEST_QUESTION} characters")
    if config is None:
        kind = "openai" if base_url else None
        urls = (base_url,) if base_url else None
        config = load_config(
            overrides={
                "engine": {"kind": kind, "base_urls": urls, "model": model},
                "algorithm": {"samples": samples},
                "allocator": {"rule": rule},
            }
        )
    if engine is not None:
        return await _ask(question.strip(), config, engine, observer)
    built = build_engine(config.engine, config.algorithm.seed, config.scheduler)
    own = with_rewards(config, built)
    try:
        await own.start()
        return await _ask(question.strip(), config, own, observer)
    finally:
        await own.close()


async def _ask(question: str, config: Config, engine: Engine, observer: Observer | None) -> Outcome:
    from certaindex.equivalence import AnswerEquivalence
    from certaindex.stopping import parse_rule
    from dynasor.allocator import PerQuery
    from dynasor.bench.offline import make_program
    from dynasor.programs import algorithm_of, rule_of
    from dynasor.room import Room
    from dynasor.runtime import Runtime
    from dynasor.suites import Query, Suite

    query = Query("question", question, None)
    suite = Suite("question", (query,), "math")
    with AnswerEquivalence() as equivalence:
        algorithm = algorithm_of(config)
        room = Room(round(config.allocator.fill * engine.capacity().max_running))
        rule = parse_rule(rule_of(config))
        allocator = PerQuery(rule, algorithm.wave(config), room=room, fills=algorithm.fills)
        in_order = config.algorithm.seed is not None and algorithm.in_order
        runtime = Runtime(engine, allocator, in_order=in_order, observer=observer)
        program = make_program(config, suite, query, 0, equivalence)
        return await runtime.solve(program, deadline=config.allocator.deadline)
