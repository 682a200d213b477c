"""The offline benchmark: a suite of questions, with the full budget and with a stop rule.

Both systems run live on the same engine with the same settings, one after the other, each in a
folder of its own that can be killed and gone on with. With a seed both see the same samples, so the
comparison is paired sample by sample; without one it is paired by question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from algorithms.program import Program, Prompt
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.stopping import parse_rule
from certaindex.value import value_of_next_sample
from dynasor.allocator import Allocator, GlobalBudget, PerQuery
from dynasor.bench.summary import Row, row_of
from dynasor.config import AlgorithmConfig, Config
from dynasor.engines.base import Engine
from dynasor.errors import ConfigError
from dynasor.observer import Observer
from dynasor.programs import Ingredients, algorithm_of, build_program, sampling_of
from dynasor.room import Room
from dynasor.run_folder import RunFolder
from dynasor.runtime import Runtime
from dynasor.suites import Query, Suite


class System(NamedTuple):
    """One way to spend compute: a name for the table, a folder, a rule or a global budget.

    Attributes:
        name: in tables and pictures.
        folder: name of its run folder.
        rule: stop rule.
        budget_tokens: one budget for the whole suite, output tokens, in place of the rule.
        plain: without what saves tokens inside the program.
    """

    name: str
    folder: str
    rule: str
    budget_tokens: int | None = None
    plain: bool = False


def make_program(
    config: Config,
    suite: Suite,
    query: Query,
    number: int,
    equivalence: AnswerEquivalence,
    report_every: int | None = None,
) -> Program:
    """A fresh program for one query; `number` sets its seeds apart from those of other queries."""
    algorithm = config.algorithm
    sampling = sampling_of(config)
    if algorithm.seed is not None:
        first = algorithm.seed + number * algorithm.samples
        sampling = replace(sampling, seed=first)
    name = algorithm.extractor or suite.extractor
    task = Task(
        query.id,
        ask(query.question, config.instruction),
        sampling,
        extract=lambda text: extract(text, name),
        groups=AnswerGroups(equivalence),
    )
    return build_program(Ingredients(config, task, report_every))


def ask(question: str, instruction: str) -> Prompt:
    """The chat that asks a question."""
    text = f"{question}\n\n{instruction}" if instruction else question
    return ({"role": "user", "content": text},)


def allocator_of(config: Config, system: System, engine: Engine) -> Allocator:
    """The allocator that carries a system out."""
    if system.budget_tokens is not None:
        slots = min(engine.capacity().max_running, config.allocator.admission)
        return GlobalBudget(system.budget_tokens, value_of_next_sample, slots=slots)
    algorithm = algorithm_of(config)
    room = Room(round(config.allocator.fill * engine.capacity().max_running))
    return PerQuery(
        parse_rule(system.rule), algorithm.wave(config), room=room, fills=algorithm.fills
    )


async def run_system(
    config: Config,
    suite: Suite,
    system: System,
    engine: Engine,
    folder: RunFolder,
    equivalence: AnswerEquivalence,
    display: Observer | None = None,
) -> list[Row]:
    """Run what the folder does not hold yet; rows of all queries, in the suite's order.

    Raises:
        EngineError: if the engine dies; what was finished is in the folder.
        RunError: if the folder cannot be written.
    """
    if system.plain:
        config = algorithm_of(config).plain(config)
    runtime = Runtime(
        engine,
        allocator_of(config, system, engine),
        in_order=config.algorithm.seed is not None and algorithm_of(config).in_order,
        log=folder,
        observer=display,
    )
    queries = {query.id: query for query in suite.queries}
    programs: Iterator[Program] = (
        make_program(config, suite, query, number, equivalence)
        for number, query in enumerate(suite.queries)
        if query.id not in folder.outcomes
    )
    # One budget for all can only be shared out if all are there.
    shared = system.budget_tokens is not None
    admission = len(queries) if shared else config.allocator.admission
    async for outcome in runtime.run(
        programs, admission=admission, deadline=config.allocator.deadline
    ):
        query = queries[outcome.query]
        correct = None
        if query.gold is not None:
            value = outcome.answer.value
            correct = value is not None and await asyncio.to_thread(
                equivalence.same, query.gold, value
            )
        folder.write_outcome(row_of(outcome, query, correct))
    return [folder.outcomes[query.id] for query in suite.queries]


def settings_of(config: Config, suite: Suite, system: System, model: str) -> dict[str, Any]:
    """What makes two runs the same run, for the folder's run.json."""
    allocator = {"wave": config.allocator.wave, "deadline": config.allocator.deadline}
    return {
        "suite": suite.name,
        "queries": len(suite.queries),
        "model": model,
        "algorithm": _algorithm_settings(config),
        "allocator": allocator,
        "rule": system.rule,
        "budget_tokens": system.budget_tokens,
    }


def _algorithm_settings(config: Config) -> dict[str, Any]:
    """Settings of the program; the sections of other programs only where they were changed."""
    settings = config.algorithm.model_dump()
    unchanged = {
        name: section
        for name, section in AlgorithmConfig().model_dump().items()
        if isinstance(section, dict) and settings[name] == section
    }
    return {name: value for name, value in settings.items() if name not in unchanged}


def systems_of(config: Config, rules: Sequence[str], baseline: bool) -> list[System]:
    """The systems of a benchmark run: the full budget first, then each rule.

    Raises:
        ConfigError: if a rule is wrong, or a global budget is asked for without the baseline that
            measures it.
    """
    for rule in rules:
        try:
            parse_rule(rule)
        except ValueError as error:
            raise ConfigError(f"--rule: {error}") from None
    named = algorithm_of(config).budget(config)
    full = System(named, "full", full_rule(config), plain=True)
    systems = [full] if baseline else []
    own = f"{config.algorithm.name} ({full_rule(config)})"
    systems += [
        System(own if rule == full_rule(config) else rule, f"rule-{number}", rule)
        for number, rule in enumerate(rules, 1)
    ]
    if config.allocator.budget is not None and not baseline:
        raise ConfigError(
            f"allocator.budget = {config.allocator.budget}: a share of what the full budget uses "
            "needs the baseline run; leave out --no-baseline"
        )
    return systems


def full_rule(config: Config) -> str:
    """The rule that spends the full budget."""
    return algorithm_of(config).full(config)


def global_budget_system(config: Config, full: Sequence[Row]) -> System | None:
    """The global-budget system, priced by what the full budget has used; None if not asked for."""
    share = config.allocator.budget
    if share is None:
        return None
    tokens = max(1, round(share * sum(row["tokens"] for row in full)))
    return System(f"global budget {share:g}", "global", full_rule(config), tokens)


def folder_of(
    path: Path, config: Config, suite: Suite, system: System, model: str, fresh: bool
) -> RunFolder:
    """The run folder of a system below `path`."""
    name = config.algorithm.extractor or suite.extractor
    return RunFolder(
        path / system.folder,
        settings_of(config, suite, system, model),
        golds={query.id: query.gold for query in suite.queries},
        extract=lambda text: extract(text, name),
        fresh=fresh,
    )
