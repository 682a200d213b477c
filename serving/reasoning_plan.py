"""From a request to a plan: which algorithm, with which budget, until when.

A request says how to think in three ways: `dynasor` in the body, a suffix of the model's name
(`model:self-consistency`), and `reasoning_effort`. The first that is there decides on the algorithm;
the effort also decides on the budget, where `dynasor` does not. A request that says nothing is plain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast
from uuid import uuid4

from algorithms.program import Prompt, Sampling
from dynasor.config import Config
from dynasor.programs import algorithm_of, rule_of, sampling_of
from dynasor.server_config import ALGORITHMS, AlgorithmName, Effort
from dynasor.slo.admission import Admission
from serving.api_errors import ApiError
from serving.openai_protocol import ChatRequest, CompletionRequest, DynasorOptions
from serving.program_settings import (
    WITHOUT_SAMPLES,
    WriteConfig,
    check_affordable,
    servable,
    why_not,
    with_settings,
)
from serving.sampling_asked import (
    at_most,
    prefix_for,
    prompt_for,
    report_every_for,
    sampling_for,
)

PROMISED: AlgorithmName = "self-consistency"
"""The program whose settings `dynasor tune` certifies."""
WRITERS = 4
"""Parts that agentwrite writes at once, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done about a request.

    Attributes:
        id: of the query, the gang and the answer.
        model: as the client named it.
        algorithm: the program.
        config: of the server, with the program, its budget and its settings.
        prompt: as the engine gets it.
        prefix: text with which a plain answer begins, already written.
        sampling: of each sample.
        samples: full budget, or answers wanted of a plain request.
        rule: stop rule.
        wave: samples in flight.
        fills: whether it may have more of them while the engine has room.
        tokens: output tokens after which nothing is begun, or None.
        deadline: seconds after which the best answer so far is given.
        in_hurry: whether the client set that deadline.
        priority: of the query; each step up doubles its weight.
        weight: of its class; the scheduler orders by expected work over weight.
        report_every: tokens between progress events, or None for none.
        writing: the text to write, of agentwrite.
        promise: class of `[slo]` that the query is of, or None.
        admission: how its class serves it, once it does.
    """

    id: str
    model: str
    algorithm: AlgorithmName
    config: Config
    prompt: Prompt
    prefix: str
    sampling: Sampling
    samples: int
    rule: str
    wave: int
    fills: bool
    tokens: int | None
    deadline: float
    in_hurry: bool
    priority: int
    report_every: int | None
    weight: float = 1.0
    writing: WriteConfig | None = None
    promise: str | None = None
    admission: Admission | None = None

    def with_setting(self, rule: str, samples: int, wave: int) -> Plan:
        """This plan with another stop rule, full budget and wave."""
        algorithm = self.config.algorithm.model_copy(update={"samples": samples})
        config = self.config.model_copy(update={"algorithm": algorithm})
        return replace(self, config=config, rule=rule, samples=samples, wave=min(wave, samples))

    @property
    def plain(self) -> bool:
        """Whether nothing is reasoned about."""
        return self.algorithm == "none"

    @property
    def has_votes(self) -> bool:
        """Whether answers are compared."""
        return self.algorithm not in ("none", "agentwrite")

    @property
    def in_order(self) -> bool:
        """Whether the answer shall depend on what was sampled only, and not on what was faster."""
        seeded = self.sampling.seed is not None
        return seeded and (not self.has_votes or algorithm_of(self.config).in_order)


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
    samples = _samples(asked, algorithm, effort, config)
    seconds: list[float] = [
        at_most(value, limits.max_seconds, name)
        for value, name in (
            (options.budget.seconds, "dynasor.budget.seconds"),
            (options.deadline_ms and options.deadline_ms / 1000, "dynasor.deadline_ms"),
        )
        if value is not None
    ]
    changed = with_settings(config, algorithm, samples, options)
    sampling = sampling_for(asked, changed, algorithm)
    check_affordable(changed, algorithm, sampling, options)
    in_hurry, promise, weight = bool(seconds), None, 1.0
    if algorithm == PROMISED:
        promise = _promise(asked, config, changed, sampling)
    if promise is not None:
        promised = config.slo.classes[promise]
        seconds.append(promised.deadline or limits.max_seconds)
        weight = promised.weight
    return Plan(
        id=f"{'chatcmpl' if isinstance(asked, ChatRequest) else 'cmpl'}-{uuid4().hex}",
        model=asked.model,
        algorithm=algorithm,
        config=changed,
        prefix=prefix_for(asked, algorithm),
        prompt=prompt_for(asked, algorithm, config.instruction),
        sampling=sampling,
        samples=samples,
        rule=_rule(options, algorithm, effort, changed),
        wave=_wave(options, algorithm, effort, changed, samples),
        # What was promised, was promised of the wave; and who names a wave wants it.
        fills=promise is None and options.wave is None and _fills(changed, algorithm),
        tokens=options.budget.tokens,
        deadline=min([*seconds, limits.max_seconds]),
        in_hurry=in_hurry,
        priority=options.priority,
        report_every=report_every_for(asked, algorithm, in_hurry),
        weight=weight,
        writing=_writing(options, algorithm),
        promise=promise,
    )


def _promise(
    asked: ChatRequest | CompletionRequest, config: Config, changed: Config, sampling: Sampling
) -> str | None:
    """The class of a query; None where it brings its own setting, of which nothing was promised."""
    options, budget = asked.dynasor, asked.dynasor.budget
    own = (budget.samples, budget.tokens, budget.seconds, options.stop.rule, options.wave)
    if options.deadline_ms is not None or any(own):
        return None
    same = {"name": PROMISED, "samples": changed.algorithm.samples}
    if changed.algorithm != config.algorithm.model_copy(update=same):
        return None
    if replace(sampling, seed=None) != replace(sampling_of(changed), seed=None):
        return None
    effort, metadata = None, None
    if isinstance(asked, ChatRequest):
        effort, metadata = asked.reasoning_effort, asked.metadata
    return config.slo.class_of(model=asked.model, effort=effort, metadata=metadata or {})


def _samples(
    asked: ChatRequest | CompletionRequest, algorithm: AlgorithmName, effort: Effort, config: Config
) -> int:
    """The full budget, or the answers wanted of a plain request."""
    most = config.server.max_samples
    if algorithm == "none":
        return at_most(asked.n or 1, most, "n")
    if asked.n not in (None, 1):
        message = f"{algorithm} gives one answer; leave n out, or ask for algorithm none"
        raise ApiError(400, f"n: {message}", param="n")
    given = asked.dynasor.budget.samples
    if algorithm not in WITHOUT_SAMPLES:
        wanted = given or effort.samples or config.algorithm.samples
        return at_most(wanted, most, "dynasor.budget.samples")
    if given is not None:
        message = f"{algorithm} writes one text; limit it by max_tokens or dynasor.budget.tokens"
        raise ApiError(400, f"dynasor.budget.samples: {message}", param="dynasor.budget.samples")
    return 1


def _rule(options: DynasorOptions, algorithm: AlgorithmName, effort: Effort, config: Config) -> str:
    """The stop rule: the client's, that of the effort, the configured one, the program's own."""
    if algorithm == "none":
        return config.allocator.rule
    if algorithm == "agentwrite":
        if options.stop.rule is not None:
            message = "agentwrite has no votes that a rule could look at"
            raise ApiError(400, f"dynasor.stop.rule: {message}", param="dynasor.stop.rule")
        return "never"
    if options.stop.rule is not None:
        rule = options.stop.rule
    else:
        rule = (effort.rule if effort.algorithm == algorithm else None) or config.allocator.rule
    allocator = config.allocator.model_copy(update={"rule": rule})
    return rule_of(config.model_copy(update={"allocator": allocator}))


def _wave(
    options: DynasorOptions,
    algorithm: AlgorithmName,
    effort: Effort,
    config: Config,
    samples: int,
) -> int:
    """Requests in flight: the client's, that which suits the program, that of the effort."""
    if algorithm == "none":
        return samples
    if algorithm == "agentwrite":
        return options.wave or WRITERS
    wave = options.wave or effort.wave or config.allocator.wave
    allocator = config.allocator.model_copy(update={"wave": wave})
    suits = algorithm_of(config).wave(config.model_copy(update={"allocator": allocator}))
    return min(options.wave or suits, samples)


def _fills(config: Config, algorithm: AlgorithmName) -> bool:
    return algorithm not in ("none", "agentwrite") and algorithm_of(config).fills


def _writing(options: DynasorOptions, algorithm: AlgorithmName) -> WriteConfig | None:
    if algorithm == "agentwrite" and options.write is None:
        message = 'agentwrite needs {"words": ...}, the length of the text'
        raise ApiError(400, f"dynasor.write: {message}", param="dynasor.write")
    return options.write


def _algorithm(
    asked: ChatRequest | CompletionRequest, config: Config, served: str
) -> tuple[AlgorithmName, Effort]:
    name, colon, suffix = asked.model.rpartition(":")
    if asked.model == served:
        suffix = ""
    elif not colon or name != served or suffix not in ALGORITHMS:
        known = ", ".join([served, *(f"{served}:{algorithm}" for algorithm in servable(config))])
        raise ApiError(
            404,
            f"no model {asked.model[:100]!r}; there are {known}",
            param="model",
            code="model_not_found",
        )
    level = asked.reasoning_effort if isinstance(asked, ChatRequest) else None
    effort = config.server.effort[level or config.server.default_effort]
    options = asked.dynasor
    field, algorithm = "reasoning_effort", effort.algorithm
    if options.algorithm is not None:
        field, algorithm = "dynasor.algorithm", options.algorithm
    elif suffix:
        field, algorithm = "model", cast(AlgorithmName, suffix)
    elif level is None and options.budget.samples is not None and algorithm == "none":
        algorithm = "self-consistency"  # who gives a budget of samples wants them
    if (reason := why_not(config, algorithm)) is not None:
        raise ApiError(400, f"{field}: {algorithm}: {reason}", param=field)
    return algorithm, effort
