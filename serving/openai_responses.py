"""What clients get: OpenAI's objects with usage, and `dynasor` beside them."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel


class PromptTokensDetails(BaseModel):
    """Prompt tokens by what they cost."""

    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    """Output tokens that are not in the answer's text."""

    reasoning_tokens: int


class Usage(BaseModel):
    """All tokens that were spent on the query, over all its samples."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TokenBreakdown(BaseModel):
    """Output tokens by what they were for.

    Attributes:
        answer: of the text that is the answer.
        other_samples: of the other samples and steps that counted.
        probes: of probes.
        cut: of samples that were cut or failed.
        saved: expected tokens of the full budget that were not spent; 0 where that cannot be told.
    """

    answer: int
    other_samples: int
    probes: int
    cut: int
    saved: int


class Certainty(BaseModel):
    """How sure the answer is: certaindex in [0, 1], its measure, on how many answers."""

    value: float
    measure: str
    evidence: int


class Report(BaseModel):
    """`dynasor` in an answer: what became of the query.

    Attributes:
        query: its id, also in the log and in traces.
        algorithm: the program; `none` for a plain request.
        state: `running` in the progress events of a stream, `done` at the end.
        answer: as read from the texts; None where none was found or nothing was read.
        votes: answer -> samples, heaviest first.
        certaindex: of the votes.
        samples: finished answers that count: samples, probes or leaves.
        budget: those of the full budget.
        stopped: why it ended: certain, hopeless, complete, budget, deadline.
        best_so_far: whether it was ended before its rule had decided or its budget was used.
        failed: requests that the engine failed.
        scored: texts that the reward model has judged, which costs no output tokens.
        tokens: the bill; None while it runs.
        seconds: since it came.
    """

    query: str
    algorithm: str
    state: Literal["running", "done"]
    answer: str | None
    votes: dict[str, int]
    certaindex: Certainty
    samples: int
    budget: int
    stopped: str | None
    best_so_far: bool
    failed: int
    scored: int
    tokens: TokenBreakdown | None
    seconds: float


class AnswerMessage(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None


class TopLogprob(BaseModel):
    """A token that could have stood in this place."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """One token of the output."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Log-probabilities of the tokens of a choice."""

    content: list[TokenLogprob]
    refusal: None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """Answer of `POST /v1/chat/completions` without a stream."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    dynasor: Report


class TextLogprobs(BaseModel):
    """Log-probabilities of the tokens of a text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(BaseModel):
    """Answer of `POST /v1/completions` without a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    dynasor: Report


class Model(BaseModel):
    """One model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"]
    data: list[Model]


_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: it is called for each token


def event(content: Any) -> bytes:
    """One server-sent event."""
    return f"data: {_encode(content)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
PING = b": still thinking\n\n"
"""A comment, which keeps the connection alive and tells clients nothing."""
