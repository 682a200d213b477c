"""All reasoning programs by name: how each is built, and how the allocator treats it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from algorithms.beam_search import BeamSearch
from algorithms.best_of_n import BestOfN
from algorithms.deepconf import Confidence, DeepConf
from algorithms.dynasor_cot import EFFORT, DynasorCot, Probing
from algorithms.mcts import Mcts
from algorithms.program import Program, Sampling
from algorithms.rebase import Rebase
from algorithms.self_consistency import SelfConsistency
from algorithms.short_m_of_k import ShortMOfK
from algorithms.task import Task
from dynasor.config import Config
from dynasor.embedded_model.problems import PROBE_SUFFIX
from dynasor.errors import ConfigError
from dynasor.search_shape import one_tree, side_by_side, steps_of, width_of
from dynasor.vote_weights import early_cut, weigher

TOP_LOGPROBS = 5
"""Log-probabilities that a token's confidence averages."""
EMBEDDED_INTERVAL, EMBEDDED_GROUP = 16, 16
"""Tokens between probes, and in a group: solutions of the embedded model have some ninety."""
GROUP = 2048


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What every program is made of.

    Attributes:
        config: that names the program and has its settings.
        task: what it works on.
        report_every: output tokens between two reports of a sample, for those who watch; or None.
    """

    config: Config
    task: Task
    report_every: int | None = None


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How a program is built and run.

    Attributes:
        build: makes a fresh program.
        rule: stop rule that suits it, where none is given.
        full: rule that spends its full budget.
        budget: the full budget in words.
        plain: the configuration without what saves tokens inside the program: no probes, nothing
            cut; the full budget to compare with.
        wave: requests of a query in flight.
        scored: whether it asks for rewards.
        fills: whether more requests in flight change nothing but time and tokens, so that a query may
            fill an engine that has room.
        in_order: whether its requests may be folded in the order of their proposal; not where the
            answer depends on which is faster.
        whole_samples: whether what it asks the model for are whole answers to the question, and so can
            be recorded and replayed.
    """

    build: Callable[[Ingredients], Program]
    rule: Callable[[Config], str] = lambda config: "default"
    full: Callable[[Config], str] = lambda config: "never"
    budget: Callable[[Config], str] = lambda config: f"full budget ({config.algorithm.samples})"
    plain: Callable[[Config], Config] = lambda config: config
    wave: Callable[[Config], int] = lambda config: config.allocator.wave
    scored: bool = False
    fills: bool = False
    in_order: bool = True
    whole_samples: bool = False


def algorithm_of(config: Config) -> Algorithm:
    """The program that a configuration names."""
    return ALGORITHMS[config.algorithm.name]


def build_program(ingredients: Ingredients) -> Program:
    """A fresh program of the configured kind.

    Raises:
        ConfigError: if its settings contradict each other.
    """
    config = ingredients.config
    try:
        return algorithm_of(config).build(ingredients)
    except ValueError as error:
        raise ConfigError(f"algorithm.name = {config.algorithm.name!r}: {error}") from None


def rule_of(config: Config) -> str:
    """The stop rule: that of the configuration, or the program's own in place of `default`."""
    rule = config.allocator.rule
    return algorithm_of(config).rule(config) if rule == "default" else rule


def sampling_of(config: Config) -> Sampling:
    """The request parameters that a configuration asks for."""
    algorithm = config.algorithm
    confident = algorithm.weigh not in (None, "evidence") or algorithm.name == "deepconf"
    return Sampling(
        temperature=algorithm.temperature,
        top_p=algorithm.top_p,
        max_tokens=algorithm.max_tokens,
        top_logprobs=TOP_LOGPROBS if confident else 0,
        logprobs=algorithm.logprobs or algorithm.weigh == "evidence",
    )


def _self_consistency(given: Ingredients) -> Program:
    return SelfConsistency(
        given.task,
        samples=given.config.algorithm.samples,
        weigh=weigher(given.config),
        cut=early_cut(given.config),
        report_every=given.report_every,
    )


def _best_of_n(given: Ingredients) -> Program:
    return BestOfN(
        given.task,
        samples=given.config.algorithm.samples,
        select=given.config.algorithm.reward.select,
    )


def _short_m_of_k(given: Ingredients) -> Program:
    algorithm = given.config.algorithm
    return ShortMOfK(
        given.task,
        first=algorithm.short.first or max(1, algorithm.samples // 2),
        samples=algorithm.samples,
    )


def _deepconf(given: Ingredients) -> Program:
    algorithm, embedded = given.config.algorithm, given.config.is_embedded
    if algorithm.weigh == "evidence":
        raise ValueError("weigh must be a statistic of token confidence, not 'evidence'")
    group = algorithm.deepconf.group or (EMBEDDED_GROUP if embedded else GROUP)
    return DeepConf(
        given.task,
        samples=algorithm.samples,
        confidence=Confidence(
            statistic=algorithm.weigh or "lowest_group",
            keep=algorithm.deepconf.keep,
            group=group,
            tail=group,
            warm_up=algorithm.deepconf.warm_up,
            report_every=algorithm.deepconf.report_every or max(1, group // 2),
        ),
    )


def probing_of(config: Config) -> Probing:
    """How a chain is probed: by the level of effort, but for what is set."""
    cot = config.algorithm.cot
    window, interval = EFFORT[cot.effort]
    if config.is_embedded:
        interval = EMBEDDED_INTERVAL * interval // EFFORT["mid"][1]
        asked = replace(Probing(), question=PROBE_SUFFIX, closing=PROBE_SUFFIX)
    else:
        asked = Probing()
    return Probing(
        window=cot.window or window,
        interval=cot.interval or interval,
        question=cot.question or asked.question,
        tokens=cot.probe_tokens,
        closing=cot.closing or asked.closing,
        answer_tokens=cot.answer_tokens,
    )


def _dynasor_cot(given: Ingredients) -> Program:
    return DynasorCot(given.task, probing=probing_of(given.config))


def _beam_search(given: Ingredients) -> Program:
    algorithm = given.config.algorithm
    return BeamSearch(
        given.task,
        leaves=algorithm.samples,
        width=width_of(given.config),
        children=algorithm.search.children,
        steps=steps_of(given.config),
    )


def _rebase(given: Ingredients) -> Program:
    return Rebase(
        given.task,
        leaves=given.config.algorithm.samples,
        width=width_of(given.config),
        steps=steps_of(given.config),
        temperature=given.config.algorithm.search.temperature,
    )


def _mcts(given: Ingredients) -> Program:
    search = given.config.algorithm.search
    return Mcts(
        given.task,
        leaves=given.config.algorithm.samples,
        children=search.children,
        steps=steps_of(given.config),
        exploration=search.exploration,
        rollouts=search.rollouts,
    )


def _samples(config: Config) -> int:
    return config.algorithm.samples


def _reward_rule(config: Config) -> str:
    return "reward"


def _with(config: Config, section: str, **values: int) -> Config:
    """The configuration with other values in a section of its algorithm."""
    algorithm = config.algorithm
    changed = getattr(algorithm, section).model_copy(update=values)
    return config.model_copy(update={"algorithm": algorithm.model_copy(update={section: changed})})


def _level_search(
    build: Callable[[Ingredients], Program], plain: Callable[[Config], Config]
) -> Algorithm:
    """A search whose wave is a whole level of a tree at least."""
    return Algorithm(
        build,
        rule=_reward_rule,
        plain=plain,
        wave=lambda config: max(config.allocator.wave, width_of(config)),
        scored=True,
    )


ALGORITHMS: dict[str, Algorithm] = {
    "self-consistency": Algorithm(
        _self_consistency,
        full=lambda config: f"fixed:{config.algorithm.samples}",
        fills=True,
        whole_samples=True,
    ),
    "best-of-n": Algorithm(
        _best_of_n, rule=_reward_rule, scored=True, fills=True, whole_samples=True
    ),
    "beam-search": _level_search(_beam_search, one_tree),
    "dvts": _level_search(_beam_search, side_by_side),
    "rebase": _level_search(_rebase, one_tree),
    "mcts": Algorithm(_mcts, rule=_reward_rule, scored=True),
    "dynasor-cot": Algorithm(
        _dynasor_cot,
        rule=lambda config: f"stable:{probing_of(config).window}",
        budget=lambda config: "full chain",
        plain=lambda config: _with(config, "cot", interval=config.algorithm.max_tokens),
    ),
    "deepconf": Algorithm(
        _deepconf,
        rule=lambda config: f"consensus:0.95,min={config.algorithm.deepconf.warm_up or 4}",
        plain=lambda config: _with(config, "deepconf", warm_up=0),
        whole_samples=True,
    ),
    "short-m-of-k": Algorithm(
        _short_m_of_k,
        rule=lambda config: "never",
        plain=lambda config: _with(config, "short", first=config.algorithm.samples),
        wave=_samples,
        in_order=False,
        whole_samples=True,
    ),
}
