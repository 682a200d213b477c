"""The configuration: one TOML file, one model.

Order of precedence: command line, environment (`DYNASOR_SECTION__KEY`, such as
`DYNASOR_ALGORITHM__SAMPLES=32`), file, default. An unknown key or a value out of range is an error
that names the key, the value and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from certaindex.answers import extractor
from certaindex.stopping import parse_rule
from dynasor.cluster_config import ClusterConfig
from dynasor.config_sources import from_environment, from_file, merge
from dynasor.errors import ConfigError
from dynasor.program_config import (
    CotConfig,
    DeepConfConfig,
    ProgramName,
    RewardConfig,
    SearchConfig,
    Section,
    ShortConfig,
)
from dynasor.scheduling.policies import parse_policy
from dynasor.server_config import ServerConfig
from dynasor.slo.promise import SloConfig

EMBEDDED = "embedded"
"""Name of the model that comes with the package."""
GENERAL_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
NO_RANKING = "none"
"""Value of ranking.model that ranks nothing."""
VLLM_ORDERS = ("none", "vllm", "vllm-priority")
"""Values of scheduler.policy that leave the order to vLLM."""


class EngineConfig(Section):
    """`[engine]`: what generates."""

    kind: Literal["vllm", "openai", "replay"] = Field(
        "vllm", description="vllm: in this machine; openai: any compatible server; replay: a trace"
    )
    model: str = Field(
        EMBEDDED, description="folder, hub name, `embedded`, or the model's name on the server"
    )
    base_urls: tuple[str, ...] = Field((), description="servers for `openai`")
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="environment variable that holds the server's key"
    )
    traces: str | None = Field(None, description="trace file for `replay`")
    tokens_per_second: float | None = Field(
        None, gt=0, description="speed of each sample in `replay`; as fast as possible if not set"
    )
    max_running: int = Field(128, ge=1, le=4096, description="requests in the batch at once")
    max_model_len: int | None = Field(
        None,
        ge=16,
        description="longest prompt plus output, tokens; by model and memory if not set",
    )
    kv_gib: int | None = Field(
        None, ge=1, description="KV cache on CPU, GiB; a quarter of the free memory if not set"
    )
    kv_blocks: int | None = Field(
        None, ge=1, description="KV cache in blocks, in place of what memory allows"
    )
    tensor_parallel: int = Field(1, ge=1, le=64, description="GPUs over which each layer is split")
    pipeline_parallel: int = Field(1, ge=1, le=64, description="GPUs over which layers are spread")
    tune_cpu: bool = Field(True, description="preload fast libraries and bind threads on CPU")
    timeout: float = Field(60.0, gt=0, description="seconds that a server may be silent")
    retries: int = Field(3, ge=0, le=20, description="tries again after a server's failure")
    health_every: float = Field(
        5.0,
        gt=0,
        le=600,
        description="seconds between two looks at each of several servers; one that hangs is left "
        "after four times as long at most",
    )
    gang_hints: bool = Field(
        False,
        description="send gang and hints along to servers that run our scheduler in vLLM; others "
        "may refuse the field",
    )


INSTEAD = {
    "chat": "a plain answer is self-consistency with samples = 1",
    "agentwrite": "it writes long texts, which have no right answer; see `dynasor write`",
}


class AlgorithmConfig(Section):
    """`[algorithm]`: how a question is thought about."""

    name: ProgramName = Field("self-consistency", description="the program")
    samples: int = Field(16, ge=1, le=1024, description="full budget, samples a query")
    temperature: float = Field(1.0, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="below 1 is slow on CPU")
    max_tokens: int = Field(1024, ge=1, le=131072, description="longest sample, tokens")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="same seed, same samples; answers are then counted in order of index",
    )
    instruction: str | None = Field(
        None,
        max_length=10_000,
        description="added to each question; by default a request to reason and to box the answer, "
        "and nothing for the embedded model, which has learnt to",
    )
    extractor: str | None = Field(None, description="how answers are read; by suite if not set")
    weigh: Literal["mean", "lowest_group", "tail", "bottom_tenth", "evidence"] | None = Field(
        None,
        description="weigh votes by this statistic of token confidence, or by the evidence of their "
        "likelihood",
    )
    evidence: str | None = Field(
        None,
        description="what `dynasor evidence` learned of the model, for `weigh = evidence`; the "
        "embedded model brings its own",
    )
    early_cut: bool = Field(
        True,
        description="with `weigh = evidence`: cut a sample once it has become improbable, where what "
        "was learned of the model says that it pays",
    )
    logprobs: bool = Field(
        False, description="keep each token's log-probability with recorded samples"
    )
    search: SearchConfig = SearchConfig()
    reward: RewardConfig = RewardConfig()
    cot: CotConfig = CotConfig()
    deepconf: DeepConfConfig = DeepConfConfig()
    short: ShortConfig = ShortConfig()

    @field_validator("name", mode="before")
    @classmethod
    def _votes_on_answers(cls, value: Any) -> Any:
        """The two programs that have no answers to compare are to be had elsewhere."""
        if isinstance(value, str) and value in INSTEAD:
            raise ValueError(INSTEAD[value])
        return value

    @field_validator("extractor")
    @classmethod
    def _known_extractor(cls, value: str | None) -> str | None:
        if value is not None:
            extractor(value)
        return value


class AllocatorConfig(Section):
    """`[allocator]`: when a query has had enough."""

    rule: str = Field("default", description="stop rule; `dynasor rules` lists them")
    budget: float | None = Field(
        None,
        gt=0,
        le=1,
        description="one budget for the whole batch, as a share of what the full budget would use",
    )
    wave: int = Field(
        1, ge=1, le=1024, description="samples of a query in flight: more is faster and costs more"
    )
    fill: float = Field(
        0,
        ge=0,
        le=1,
        description="share of the engine's places up to which queries get more samples in flight than "
        "their wave: an engine with room answers sooner, and cuts what was not needed; 0 for never",
    )
    admission: int = Field(128, ge=1, le=65536, description="queries at once")
    deadline: float | None = Field(
        None, gt=0, description="seconds a query; then its best answer so far counts"
    )

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        parse_rule(value)
        return value


class SchedulerConfig(Section):
    """`[scheduler]`: which query is served first."""

    policy: str = Field(
        "default",
        description="order of the queries; `none`: first come, first served (vLLM's own scheduler), "
        "`vllm`: the same, counted, `vllm-priority`: vLLM's priorities by arrival, counted",
    )
    patience: float = Field(
        60.0, ge=0, description="seconds after which a query is guaranteed its turns"
    )
    turns: int = Field(
        4, ge=0, description="one in so many admissions goes to the oldest query; 0: no guarantee"
    )
    fit_memory: bool = Field(
        True, description="admit only what is expected to fit in the KV cache to its end"
    )

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        if value not in VLLM_ORDERS:
            parse_policy(value)
        return value


class RankingConfig(Section):
    """`[ranking]`: how long a query will be, by its prompt."""

    model: str = Field(
        NO_RANKING,
        description="`none`, a ranker that comes with the package (`cheap`, `encoder`, `blend`), or "
        "the folder of a trained one",
    )
    deadline: float = Field(
        0.05, gt=0, le=10, description="seconds after which a query goes on without a rank"
    )
    window: float = Field(
        0.002, ge=0, description="seconds in which prompts gather, to be ranked together"
    )
    batch: int = Field(64, ge=1, le=4096, description="prompts that are ranked together at most")

    @field_validator("window")
    @classmethod
    def _shorter_than_the_deadline(cls, value: float, info: ValidationInfo) -> float:
        deadline = info.data.get("deadline")
        if deadline is not None and value >= deadline:
            raise ValueError(f"must be less than ranking.deadline, which is {deadline}")
        return value


class Config(Section):
    """All settings of a run."""

    engine: EngineConfig = EngineConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    allocator: AllocatorConfig = AllocatorConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    server: ServerConfig = ServerConfig()
    ranking: RankingConfig = RankingConfig()
    cluster: ClusterConfig = ClusterConfig()
    slo: SloConfig = SloConfig()

    @model_validator(mode="after")
    def _promises_can_be_kept(self) -> Self:
        self.slo.check_deadlines(self.server.max_seconds)
        return self

    @property
    def instruction(self) -> str:
        """What is added to each question."""
        if self.algorithm.instruction is not None:
            return self.algorithm.instruction
        return "" if self.is_embedded else GENERAL_INSTRUCTION

    @property
    def is_embedded(self) -> bool:
        """Whether the model is the embedded one."""
        return self.engine.kind == "vllm" and self.engine.model == EMBEDDED


def load_config(
    path: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Merge file, environment and command line into one checked configuration.

    Args:
        path: TOML file, or None.
        overrides: section -> key (-> key) -> value from the command line; None values are not given.
        environment: the process environment by default.

    Raises:
        ConfigError: naming the key, its value and what is allowed.
    """
    merged = from_file(path, tuple(Config.model_fields)) if path is not None else {}
    merge(merged, from_environment(os.environ if environment is None else environment))
    merge(merged, overrides or {})
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem) for problem in error.errors())) from None


def scheduler_config(values: Any) -> SchedulerConfig:
    """A checked `[scheduler]` section.

    Raises:
        ConfigError: naming the key, its value and what is allowed.
    """
    try:
        return Config.model_validate({"scheduler": values}).scheduler
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: Any) -> str:
    """One pydantic problem in words: key, value, what is allowed."""
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known: Any = Config
        for name in location[:-1]:
            if get_origin(known) is dict:  # such as the classes of [slo], by name
                known = get_args(known)[1]
                continue
            fields = getattr(known, "model_fields", {})
            if name not in fields:
                return f"{key}: no such setting"
            known = fields[name].annotation
        return f"{key}: no such setting; there are {', '.join(known.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    message = re.sub(r"a valid dictionary or instance of \w+", "a section", message)
    if isinstance(problem["input"], dict):  # of a whole section: the message names the keys
        return ": ".join(filter(None, [key, message]))
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"
