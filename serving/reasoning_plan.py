"""From a request to a plan: which algorithm, with which budget, until when.

A request says how to think in three ways: `dynasor` in the body, a suffix of the model's name
(`model:self-consistency`), and `reasoning_effort`. The first that is there decides on the algorithm;
the effort also decides on the budget, where `dynasor` does not. A request that says nothing is plain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast
from uuid import uuid4

from algorithms.program import Message, Prompt, Sampling
from dynasor.config import Config
from dynasor.programs import sampling_of
from dynasor.server_config import ALGORITHMS, AlgorithmName, Effort
from serving.api_errors import ApiError
from serving.openai_protocol import ChatRequest, CompletionRequest

SEEDS = 1 << 31
PROGRESS_EVERY = 16
"""Tokens between the progress events of a sample in a stream."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done about a request.

    Attributes:
        id: of the query, the gang and the answer.
        model: as the client named it.
        algorithm: the program.
        prompt: as the engine gets it.
        sampling: of each sample.
        samples: full budget, or answers wanted of a plain request.
        rule: stop rule.
        wave: samples in flight.
        tokens: output tokens after which nothing is begun, or None.
        deadline: seconds after which the best answer so far is given.
        in_hurry: whether the client set that deadline.
        priority: of the query; each step up halves the work that the scheduler sees.
        report_every: tokens between progress events, or None for none.
    """

    id: str
    model: str
    algorithm: AlgorithmName
    prompt: Prompt
    sampling: Sampling
    samples: int
    rule: str
    wave: int
    tokens: int | None
    deadline: float
    in_hurry: bool
    priority: int
    report_every: int | None

    @property
    def plain(self) -> bool:
        """Whether nothing is reasoned about."""
        return self.algorithm == "none"


def plan_of(
    asked: ChatRequest | CompletionRequest, config: Config, served: str, most_priority: int
) -> Plan:
    """The plan of a request.

    Args:
        asked: the body.
        config: of the server.
        served: name of the model.
        most_priority: that the client may ask for.

    Raises:
        ApiError: 400 naming a field that asks for too much or contradicts another, 404 for a model
            that is not served.
    """
    algorithm, effort = _algorithm(asked, config, served)
    limits, options = config.server, asked.dynasor
    if options.priority > most_priority:
        raise ApiError(
            403,
            f"dynasor.priority: this key may ask for {most_priority} at most",
            param="dynasor.priority",
        )
    if algorithm == "none":
        samples = _at_most(asked.n or 1, limits.max_samples, "n")
    else:
        if asked.n not in (None, 1):
            raise ApiError(
                400,
                f"n: {algorithm} gives one answer; leave n out, or ask for algorithm none",
                param="n",
            )
        wanted = options.budget.samples or effort.samples or config.algorithm.samples
        samples = _at_most(wanted, limits.max_samples, "dynasor.budget.samples")
    seconds = [
        _at_most(value, limits.max_seconds, name)
        for value, name in (
            (options.budget.seconds, "dynasor.budget.seconds"),
            (options.deadline_ms and options.deadline_ms / 1000, "dynasor.deadline_ms"),
        )
        if value is not None
    ]
    wave = options.wave or effort.wave or config.allocator.wave
    return Plan(
        id=f"{'chatcmpl' if isinstance(asked, ChatRequest) else 'cmpl'}-{uuid4().hex}",
        model=asked.model,
        algorithm=algorithm,
        prompt=_prompt(asked, "" if algorithm == "none" else config.instruction),
        sampling=_sampling(asked, config, plain=algorithm == "none"),
        samples=samples,
        rule=options.stop.rule or effort.rule or config.allocator.rule,
        wave=samples if algorithm == "none" else min(wave, samples),
        tokens=options.budget.tokens,
        deadline=min([*seconds, limits.max_seconds]),
        in_hurry=bool(seconds),
        priority=options.priority,
        report_every=_report_every(asked, algorithm, bool(seconds)),
    )


def _algorithm(
    asked: ChatRequest | CompletionRequest, config: Config, served: str
) -> tuple[AlgorithmName, Effort]:
    name, colon, suffix = asked.model.rpartition(":")
    if asked.model == served:
        suffix = ""
    elif not colon or name != served or suffix not in ALGORITHMS:
        known = ", ".join([served, *(f"{served}:{algorithm}" for algorithm in ALGORITHMS)])
        raise ApiError(
            404,
            f"no model {asked.model[:100]!r}; there are {known}",
            param="model",
            code="model_not_found",
        )
    level = asked.reasoning_effort if isinstance(asked, ChatRequest) else None
    effort = config.server.effort[level or config.server.default_effort]
    options = asked.dynasor
    if options.algorithm is not None:
        return options.algorithm, effort
    if suffix:
        return cast(AlgorithmName, suffix), effort
    if level is None and options.budget.samples is not None and effort.algorithm == "none":
        return "self-consistency", effort  # who gives a budget of samples wants them
    return effort.algorithm, effort


def _at_most(value: float, limit: float, name: str) -> int:
    if value > limit:
        raise ApiError(400, f"{name}: {value:g} is more than this server's {limit:g}", param=name)
    return cast(int, value)


def _sampling(asked: ChatRequest | CompletionRequest, config: Config, *, plain: bool) -> Sampling:
    base = Sampling(max_tokens=config.algorithm.max_tokens) if plain else sampling_of(config)
    name, tokens = "max_tokens", asked.max_tokens
    if isinstance(asked, ChatRequest) and asked.max_completion_tokens is not None:
        name, tokens = "max_completion_tokens", asked.max_completion_tokens
    if tokens is not None:
        _at_most(tokens, config.server.max_tokens, name)
    limit = tokens or base.max_tokens
    if not plain and asked.logprobs not in (None, False):
        raise ApiError(
            400,
            "logprobs: only of plain requests, not of answers that many samples agreed on",
            param="logprobs",
        )
    if asked.dynasor.budget.tokens is not None:
        limit = min(limit, asked.dynasor.budget.tokens)
    return replace(
        base,
        max_tokens=limit,
        temperature=base.temperature if asked.temperature is None else asked.temperature,
        top_p=base.top_p if asked.top_p is None else asked.top_p,
        stop=asked.stops,
        alternatives=_alternatives(asked),
        seed=None if asked.seed is None else asked.seed % SEEDS,
    )


def _alternatives(asked: ChatRequest | CompletionRequest) -> int | None:
    """How many likely tokens are wanted in each place; None for no log-probabilities."""
    if isinstance(asked, CompletionRequest):
        return asked.logprobs
    if not asked.logprobs:
        if asked.top_logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
        return None
    return asked.top_logprobs or 0


def _prompt(asked: ChatRequest | CompletionRequest, instruction: str) -> Prompt:
    if isinstance(asked, CompletionRequest):
        return asked.text
    messages = [
        Message(role="system" if turn.role == "developer" else turn.role, content=turn.text)
        for turn in asked.messages
    ]
    if instruction and messages[-1]["role"] == "user":
        messages[-1]["content"] += f"\n\n{instruction}"
    return tuple(messages)


def _report_every(
    asked: ChatRequest | CompletionRequest, algorithm: AlgorithmName, in_hurry: bool
) -> int | None:
    if asked.stream:
        return 1 if algorithm == "none" else PROGRESS_EVERY
    # A plain answer that is cut short is given as far as it got.
    return PROGRESS_EVERY if in_hurry and algorithm == "none" else None
