"""Settings of the reasoning programs: the sections below `[algorithm]`.

Where a default depends on the model, the field is None and `dynasor/programs.py` says what it then
is: the embedded model writes short solutions, a line a step.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ProgramName = Literal[
    "self-consistency",
    "best-of-n",
    "beam-search",
    "dvts",
    "rebase",
    "mcts",
    "dynasor-cot",
    "deepconf",
    "short-m-of-k",
]


class Section(BaseModel):
    """A section of the configuration: no unknown keys, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchConfig(Section):
    """`[algorithm.search]`: beam search, DVTS, REBASE, MCTS; `samples` are finished answers."""

    children: int = Field(4, ge=1, le=64, description="steps tried from one node (not for rebase)")
    width: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="finished answers of one tree of beam-search or rebase; further trees are begun "
        "while it is not certain; half of `samples` if not set",
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="text that ends a step; an empty line if not set, a line for the embedded model",
    )
    step_tokens: int = Field(256, ge=1, le=131072, description="longest step, tokens")
    depth: int = Field(40, ge=1, le=1000, description="most steps of an answer")
    temperature: float = Field(0.1, gt=0, le=100, description="of REBASE's softmax over rewards")
    exploration: float = Field(0.5, ge=0, le=100, description="c of MCTS")
    rollouts: bool = Field(True, description="MCTS writes each simulation to its end")


class RewardConfig(Section):
    """`[algorithm.reward]`: what scores answers and steps."""

    kind: Literal["embedded", "transformers", "vllm", "server", "function"] | None = Field(
        None,
        description="embedded: the model that comes with the embedded one; transformers, vllm: a "
        "sequence classifier here; server: the /classify of a server; function: of Python. By "
        "default embedded for the embedded model",
    )
    model: str | None = Field(
        None, description="folder, hub name or name on the server; module:function for function"
    )
    base_url: str | None = Field(None, description="of the server")
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="environment variable that holds the server's key"
    )
    timeout: float = Field(60.0, gt=0, description="seconds that the server may be silent")
    batch: int = Field(64, ge=1, le=4096, description="attempts scored in one call")
    select: Literal["weighted", "best"] = Field(
        "weighted",
        description="best-of-n: sum the rewards of equal answers, or take the best one's",
    )


class CotConfig(Section):
    """`[algorithm.cot]`: dynasor-cot."""

    effort: Literal["mild", "low", "mid", "high", "extreme"] = Field(
        "mid", description="how hard tokens are saved: sets window and interval"
    )
    window: int | None = Field(None, ge=2, le=1000, description="probes in a row that must agree")
    interval: int | None = Field(None, ge=1, description="tokens between two probes")
    question: str | None = Field(
        None, min_length=1, max_length=10_000, description="put after the unfinished chain"
    )
    closing: str | None = Field(
        None, min_length=1, max_length=10_000, description="ends the thought after a stop"
    )
    probe_tokens: int = Field(20, ge=1, le=1024, description="longest answer to a probe")
    answer_tokens: int = Field(64, ge=1, le=131072, description="longest text after the closing")


class DeepConfConfig(Section):
    """`[algorithm.deepconf]`: deepconf; `weigh` chooses the statistic."""

    keep: float = Field(0.9, gt=0, le=1, description="most confident share of traces that vote")
    warm_up: int = Field(
        0, ge=0, le=1024, description="traces before weak ones are cut; 0: none are cut (offline)"
    )
    group: int | None = Field(None, ge=1, description="tokens a group; 2048, embedded model 16")
    report_every: int | None = Field(
        None, ge=1, description="tokens between two looks at a trace; half a group if not set"
    )


class ShortConfig(Section):
    """`[algorithm.short]`: short-m-of-k; `samples` is k."""

    first: int | None = Field(
        None, ge=1, description="m, the finished samples that answer; half of them if not set"
    )
