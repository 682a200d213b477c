"""The offline benchmark: a suite of questions, with the full budget and with a stop rule.

Both systems run live on the same engine with the same settings, one after the other, each in a
folder of its own that can be killed and gone on with. With a seed both see the same samples, so the
comparison is paired sample by sample; without one it is paired by question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from algorithms.program import Program, Prompt, Sampling
from algorithms.self_consistency import SelfConsistency
from certaindex.answers import extract
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.stopping import parse_rule
from certaindex.value import value_of_next_sample
from dynasor.allocator import Allocator, GlobalBudget, PerQuery
from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.errors import ConfigError
from dynasor.intervals import Interval, bootstrap
from dynasor.run_folder import RunFolder
from dynasor.runtime import Observer, Outcome, Runtime
from dynasor.suites import Query, Suite
from dynasor.vote_weights import weigher

Row = dict[str, Any]
"""The outcome of one query, as a line of outcomes.jsonl; see `row_of`."""


class System(NamedTuple):
    """One way to spend compute: a name for the table, a folder, a rule or a global budget.

    Attributes:
        name: in tables and pictures.
        folder: name of its run folder.
        rule: stop rule.
        budget_tokens: one budget for the whole suite, output tokens, in place of the rule.
    """

    name: str
    folder: str
    rule: str
    budget_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a system did on a suite; means a query, 95% bootstrap intervals over queries.

    Attributes:
        name: of the system.
        queries: number of queries with an outcome.
        accuracy: share of right answers, None without gold answers.
        accuracy_interval: of that.
        tokens: output tokens a query, those of cut samples included.
        samples: finished samples a query.
        tokens_ratio: tokens against the first system's, None for the first.
        tokens_ratio_interval: of that, paired by query.
        accuracy_change: accuracy less the first system's, points, None for the first.
        accuracy_change_interval: of that, paired by query.
        agreement: share of queries with the first system's answer.
        reasons: stop reason -> queries.
        failed: requests that the engine failed.
        cached_share: prompt tokens whose KV was already there, of all prompt tokens.
        seconds: of the wall clock, None where the run was gone on with.
    """

    name: str
    queries: int
    accuracy: float | None
    accuracy_interval: Interval | None
    tokens: float
    samples: float
    tokens_ratio: float | None
    tokens_ratio_interval: Interval | None
    accuracy_change: float | None
    accuracy_change_interval: Interval | None
    agreement: float | None
    reasons: Mapping[str, int]
    failed: int
    cached_share: float
    seconds: float | None


def sampling_of(config: Config) -> Sampling:
    """The request parameters that a configuration asks for."""
    algorithm = config.algorithm
    return Sampling(
        temperature=algorithm.temperature,
        top_p=algorithm.top_p,
        max_tokens=algorithm.max_tokens,
        top_logprobs=5 if algorithm.weigh not in (None, "evidence") else 0,
        logprobs=algorithm.logprobs or algorithm.weigh == "evidence",
    )


def make_program(
    config: Config,
    suite: Suite,
    query: Query,
    number: int,
    equivalence: AnswerEquivalence,
    report_every: int | None = None,
) -> SelfConsistency:
    """A fresh program for one query; `number` sets its seeds apart from those of other queries."""
    algorithm = config.algorithm
    sampling = sampling_of(config)
    if algorithm.seed is not None:
        first = algorithm.seed + number * algorithm.samples
        sampling = replace(sampling, seed=first)
    name = algorithm.extractor or suite.extractor
    return SelfConsistency(
        query.id,
        ask(query.question, config.instruction),
        samples=algorithm.samples,
        sampling=sampling,
        extract=lambda text: extract(text, name),
        groups=AnswerGroups(equivalence),
        weigh=weigher(config),
        report_every=report_every,
    )


def ask(question: str, instruction: str) -> Prompt:
    """The chat that asks a question."""
    text = f"{question}\n\n{instruction}" if instruction else question
    return ({"role": "user", "content": text},)


def allocator_of(config: Config, system: System, engine: Engine) -> Allocator:
    """The allocator that carries a system out."""
    if system.budget_tokens is not None:
        slots = min(engine.capacity().max_running, config.allocator.admission)
        return GlobalBudget(system.budget_tokens, value_of_next_sample, slots=slots)
    return PerQuery(parse_rule(system.rule), config.allocator.wave)


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
    runtime = Runtime(
        engine,
        allocator_of(config, system, engine),
        in_order=config.algorithm.seed is not None,
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


def row_of(outcome: Outcome, query: Query, correct: bool | None) -> Row:
    """One line of outcomes.jsonl."""
    return {
        "query": outcome.query,
        "answer": outcome.answer.value,
        "gold": query.gold,
        "correct": correct,
        "reason": outcome.reason,
        "samples": outcome.samples,
        "tokens": outcome.bill.output,
        "cut_tokens": outcome.bill.cut,
        "prompt_tokens": outcome.bill.prompt,
        "cached_tokens": outcome.bill.cached,
        "certainty": round(outcome.certainty.value, 4),
        "votes": [[c.answer, c.votes] for c in outcome.answer.candidates],
        "failed": outcome.failed,
        "seconds": round(outcome.seconds, 3),
        "errors": list(outcome.errors),
    }


def summarise(
    name: str, rows: Sequence[Row], first: Sequence[Row] | None, seconds: float | None
) -> Summary:
    """Sum a system up, against the first system where there is one."""
    tokens = np.array([row["tokens"] for row in rows], dtype=float)
    graded = [row["correct"] for row in rows if row["correct"] is not None]
    right = np.array(graded, dtype=float) if len(graded) == len(rows) else None
    prompt = sum(row["prompt_tokens"] for row in rows)
    reasons: dict[str, int] = {}
    for row in rows:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    ratio = ratio_interval = change = change_interval = agreement = None
    if first is not None:
        full = np.array([row["tokens"] for row in first], dtype=float)
        if full.sum() > 0:
            ratio = float(tokens.sum() / full.sum())
            ratio_interval = bootstrap(tokens, full)
        if right is not None:
            change_each = 100 * (right - np.array([row["correct"] for row in first], dtype=float))
            change, change_interval = float(change_each.mean()), bootstrap(change_each)
        same = [a["answer"] == b["answer"] for a, b in zip(rows, first, strict=True)]
        agreement = float(np.mean(same))
    return Summary(
        name=name,
        queries=len(rows),
        accuracy=None if right is None else float(right.mean()),
        accuracy_interval=None if right is None else bootstrap(right),
        tokens=float(tokens.mean()),
        samples=float(np.mean([row["samples"] for row in rows])),
        tokens_ratio=ratio,
        tokens_ratio_interval=ratio_interval,
        accuracy_change=change,
        accuracy_change_interval=change_interval,
        agreement=agreement,
        reasons=reasons,
        failed=sum(row["failed"] for row in rows),
        cached_share=sum(row["cached_tokens"] for row in rows) / prompt if prompt else 0.0,
        seconds=seconds,
    )


def settings_of(config: Config, suite: Suite, system: System, model: str) -> dict[str, Any]:
    """What makes two runs the same run, for the folder's run.json."""
    allocator = {"wave": config.allocator.wave, "deadline": config.allocator.deadline}
    return {
        "suite": suite.name,
        "queries": len(suite.queries),
        "model": model,
        "algorithm": config.algorithm.model_dump(),
        "allocator": allocator,
        "rule": system.rule,
        "budget_tokens": system.budget_tokens,
    }


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
    full = System(f"full budget ({config.algorithm.samples})", "full", full_rule(config))
    systems = [full] if baseline else []
    systems += [System(rule, f"rule-{number}", rule) for number, rule in enumerate(rules, 1)]
    if config.allocator.budget is not None and not baseline:
        raise ConfigError(
            f"allocator.budget = {config.allocator.budget}: a share of what the full budget uses "
            "needs the baseline run; leave out --no-baseline"
        )
    return systems


def full_rule(config: Config) -> str:
    """The rule that spends the full budget."""
    return f"fixed:{config.algorithm.samples}"


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
