"""What a client may set of the reasoning programs, within what the server can afford.

The sections are those of the configuration, so a field means the same in both. Left out are those that
would let a client choose what the server connects to or loads: of rewards only `select` is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from algorithms.agentwrite import TOKENS_A_WORD, Care
from algorithms.program import Sampling
from dynasor.config import Config
from dynasor.program_config import CotConfig, DeepConfConfig, SearchConfig, ShortConfig
from dynasor.programs import algorithm_of, probing_of
from dynasor.rewards.build import has_reward
from dynasor.search_shape import steps_of, width_of
from dynasor.server_config import ALGORITHMS, AlgorithmName
from serving.api_errors import ApiError

SEARCHES: tuple[AlgorithmName, ...] = ("beam-search", "dvts", "rebase", "mcts")
WITHOUT_SAMPLES: tuple[AlgorithmName, ...] = ("dynasor-cot", "agentwrite")
"""Those that write one text."""
SECTIONS: Mapping[str, tuple[AlgorithmName, ...]] = {
    "search": SEARCHES,
    "reward": ("best-of-n",),
    "cot": ("dynasor-cot",),
    "deepconf": ("deepconf",),
    "short": ("short-m-of-k",),
    "write": ("agentwrite",),
}
"""Section of `dynasor` in the body -> the algorithms that it is for."""
CLOSEST = 8
"""Fewest tokens between two looks at a running request that a client may ask for; each costs work."""


class RewardChoice(BaseModel):
    """`dynasor.reward`: how best-of-n uses rewards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: Literal["weighted", "best"] = "weighted"


class WriteConfig(BaseModel):
    """`dynasor.write`: agentwrite."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: int = Field(ge=1, le=1_000_000, description="length of the text")
    tolerance: float = Field(0.3, gt=0, lt=10, description="share that a part may be off")
    attempts: int = Field(3, ge=1, le=10, description="at most for each part, and for the plan")
    parallel: bool = Field(True, description="write independent parts at the same time")

    @property
    def care(self) -> Care:
        """For the program."""
        return Care(self.tolerance, self.attempts, self.parallel)


class ProgramOptions(BaseModel):
    """The sections of the programs in `dynasor`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    search: SearchConfig | None = None
    reward: RewardChoice | None = None
    cot: CotConfig | None = None
    deepconf: DeepConfConfig | None = None
    short: ShortConfig | None = None
    write: WriteConfig | None = None


def why_not(config: Config, name: AlgorithmName) -> str | None:
    """What a server lacks to serve an algorithm; None if it can."""
    if name in ("none", "agentwrite"):
        return None
    if algorithm_of(_named(config, name)).scored and not has_reward(config):
        return "it needs a reward model, and this server has none ([algorithm.reward])"
    if name == "deepconf" and config.algorithm.weigh == "evidence":
        return "it weighs votes by confidence, and this server by evidence (algorithm.weigh)"
    return None


def servable(config: Config) -> tuple[AlgorithmName, ...]:
    """The algorithms that a server with this configuration can serve."""
    return tuple(name for name in ALGORITHMS if why_not(config, name) is None)


def _named(config: Config, name: str, **more: object) -> Config:
    algorithm = config.algorithm.model_copy(update={"name": name, **more})
    return config.model_copy(update={"algorithm": algorithm})


def with_settings(
    config: Config, name: AlgorithmName, samples: int, options: ProgramOptions
) -> Config:
    """The configuration with this program, and with what the client has set of it.

    Raises:
        ApiError: 400 naming a section that is for another program.
    """
    changed: dict[str, object] = {}
    for section, programs in SECTIONS.items():
        given: BaseModel | None = getattr(options, section)
        if given is None:
            continue
        if name not in programs:
            field = f"dynasor.{section}"
            raise ApiError(400, f"{field}: only of {', '.join(programs)}, not {name}", param=field)
        if section != "write":
            set_here = {key: getattr(given, key) for key in given.model_fields_set}
            changed[section] = getattr(config.algorithm, section).model_copy(update=set_here)
    if name in ("none", "agentwrite"):
        return config
    return _named(config, name, samples=samples, **changed)


def check_affordable(
    config: Config, name: AlgorithmName, sampling: Sampling, options: ProgramOptions
) -> None:
    """See that no query costs more than the most samples of the greatest length would.

    Args:
        config: of the query, see `with_settings`.
        name: the algorithm.
        sampling: of the query.
        options: what the client has set.

    Raises:
        ApiError: 400 naming the field that asks for too much, or contradicts the budget.
    """
    limits, algorithm = config.server, config.algorithm
    if name in SEARCHES:
        _check_search(config, name, sampling, options)
    if name == "short-m-of-k" and (algorithm.short.first or 1) > algorithm.samples:
        _refuse("short.first", f"must be at most the {algorithm.samples} samples of the budget")
    if options.deepconf is not None and (options.deepconf.report_every or CLOSEST) < CLOSEST:
        _refuse("deepconf.report_every", f"must be {CLOSEST} or more on a server")
    if name == "dynasor-cot":
        probing = probing_of(config)
        if options.cot is not None and probing.interval < CLOSEST:
            _refuse("cot.interval", f"must be {CLOSEST} or more on a server")
        if probing.tokens > limits.max_samples * probing.interval:
            _refuse("cot.probe_tokens", "the probes would cost more than this server allows")
    if options.write is not None:
        words = int(limits.max_tokens / TOKENS_A_WORD)
        if options.write.words > words:
            _refuse("write.words", f"must be at most {words} on this server")


def _check_search(
    config: Config, name: AlgorithmName, sampling: Sampling, options: ProgramOptions
) -> None:
    samples, search = config.algorithm.samples, config.algorithm.search
    if name in ("beam-search", "dvts") and search.children > samples:
        message = f"{search.children} children are more than the {samples} samples of the budget"
        _refuse("search.children", message)
    if name in ("beam-search", "rebase") and width_of(config) > samples:
        message = f"{search.width} is more than the {samples} samples of the budget"
        _refuse("search.width", message)
    if name == "beam-search" and search.children > width_of(config):
        _refuse("search.width", f"{search.width} is less than the {search.children} children")
    steps, most = steps_of(config), config.server.max_tokens
    if options.search is not None and steps.depth * min(steps.tokens, sampling.max_tokens) > most:
        field = "step_tokens" if "step_tokens" in options.search.model_fields_set else "depth"
        _refuse(f"search.{field}", f"depth times step_tokens must be at most {most} on this server")


def _refuse(field: str, message: str) -> None:
    raise ApiError(400, f"dynasor.{field}: {message}", param=f"dynasor.{field}")
