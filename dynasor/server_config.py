"""`[server]` of the configuration: the endpoint, its limits, and what a level of effort means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from certaindex.stopping import parse_rule
from dynasor.program_config import ProgramName

EffortName = Literal["none", "minimal", "low", "medium", "high"]
AlgorithmName = Literal["none", ProgramName, "agentwrite"]
ALGORITHMS: tuple[AlgorithmName, ...] = get_args(AlgorithmName)
"""What a request can ask for; `none` is a plain request."""


class Effort(BaseModel):
    """What a value of `reasoning_effort` means; other sections say what is not set here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: AlgorithmName = Field("self-consistency", description="the program")
    samples: int | None = Field(None, ge=1, le=1024, description="full budget, samples")
    rule: str | None = Field(None, description="stop rule")
    wave: int | None = Field(None, ge=1, le=1024, description="samples in flight")

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str | None) -> str | None:
        if value is not None:
            parse_rule(value)
        return value


EFFORTS: Mapping[EffortName, Effort] = {
    "none": Effort(algorithm="none"),
    "minimal": Effort(samples=4, wave=2),
    "low": Effort(samples=8, wave=2),
    "medium": Effort(samples=16, wave=2),
    "high": Effort(samples=32, wave=2),
}
"""Levels of effort where the configuration does not say otherwise; `benchmarks/efforts.py` has what each
is worth. Two samples at once answer nearly twice as soon as one, for some 7% more tokens."""


class ServerConfig(BaseModel):
    """`[server]`: the endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port; 0 takes a free one")
    allow_public_without_keys: bool = Field(
        False, description="listen beyond this machine though anybody may ask"
    )
    keys: str | None = Field(None, description="TOML file of API keys; see `dynasor key`")
    model_name: str | None = Field(
        None, min_length=1, max_length=200, description="what clients call the model"
    )
    default_effort: EffortName = Field(
        "none", description="effort of a request that does not say; none: a plain request"
    )
    effort: dict[EffortName, Effort] = Field(
        dict(EFFORTS), description="level of `reasoning_effort` -> algorithm and budget"
    )
    max_queries: int = Field(256, ge=1, le=65536, description="queries at once; more get 429")
    max_body: int = Field(1 << 20, ge=1024, le=1 << 28, description="longest request, bytes")
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="longest prompt, tokens; what the model takes if not set"
    )
    max_samples: int = Field(64, ge=1, le=1024, description="most samples that a query may ask for")
    max_tokens: int = Field(32768, ge=1, description="longest output that a query may ask for")
    max_seconds: float = Field(
        600.0, gt=0, le=86400, description="deadline of every query; then its best answer so far"
    )
    stalled: float = Field(
        30.0, gt=0, description="seconds that a client may take to send or to read on"
    )
    drain: float = Field(
        30.0, ge=0, le=3600, description="seconds that queries have to end at shutdown"
    )
    slo: float = Field(10.0, gt=0, description="seconds within which an answer is in time")
    log_prompts: bool = Field(False, description="write prompts and answers to the log")

    @field_validator("effort", mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        """Levels that are not given keep their meaning."""
        return {**EFFORTS, **value} if isinstance(value, Mapping) else value
