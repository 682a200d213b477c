"""The contract of a reasoning program, and the few nouns it speaks of.

A program is a state machine without clock, engine or asyncio: it proposes requests, is told what
came of them, and can say at any time what it would answer and how sure it is. So the same file runs
live on vLLM, against recorded traces and in a simulator, and a test drives it by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypedDict

from certaindex.votes import Votes

RequestKind = Literal["sample", "step", "probe", "score", "answer"]
"""What a request is for: a whole answer, a part of one, a look at one that is being written, a
reward (of `prompt` and `prefix`, see `Generation.reward`), or what is still to say after a stop."""

FinishReason = Literal["stop", "length", "aborted", "error"]


class Message(TypedDict):
    """One chat turn."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]
"""Chat messages, which the engine renders by the model's chat template, or a raw text."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a request samples.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus mass; below 1 the engine sorts the vocabulary at each token: slow on CPU.
        max_tokens: longest output, tokens.
        stop: texts that end the output.
        keep_stop: leave the one that ended it at the output's end.
        seed: makes the request's output reproducible where the engine can.
        top_logprobs: how many of the largest log-probabilities a token's confidence averages;
            0 for no confidence.
        logprobs: whether the log-probability of each output token is wanted.
        alternatives: how many of the likeliest tokens are wanted in each place, as texts beside the
            chosen one; None for no token's text.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    seed: int | None = None
    top_logprobs: int = 0
    logprobs: bool = False
    alternatives: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the model that a program would like to make.

    Attributes:
        id: unique among all requests of a run.
        program: id of the program (the gang) that it belongs to.
        prompt: what the model is asked.
        sampling: how it samples.
        index: position among the requests of the same kind of this program, from 0.
        kind: what the request is for.
        prefix: text of the assistant's turn that is already written; the model goes on from there.
        report_every: output tokens between two progress events, or None for none.
    """

    id: str
    program: str
    prompt: Prompt
    sampling: Sampling
    index: int = 0
    kind: RequestKind = "sample"
    prefix: str = ""
    report_every: int | None = None


class ScoredToken(NamedTuple):
    """An output token: its text, its log-probability, and the likeliest in its place, as asked."""

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """A running request so far: text and output tokens, and what is known of each where asked for.

    Attributes:
        request: id of the request.
        text: output text so far.
        tokens: output tokens so far.
        confidence: of each, see `Generation`.
        logprobs: log-probability of each.
        scored: each, where `alternatives` were asked for.
    """

    request: str
    text: str
    tokens: int
    confidence: Sequence[float] | None = None
    logprobs: Sequence[float] | None = None
    scored: Sequence[ScoredToken] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """The end of a request.

    Attributes:
        request: id of the request.
        text: output text; partial where `finish_reason` is `aborted` or `error`.
        tokens: output tokens.
        prompt_tokens: tokens of the prompt, cached ones included.
        cached_tokens: prompt tokens whose KV the engine already held.
        finish_reason: `stop`, `length`, `aborted` (somebody cut it), `error` (the engine failed).
        confidence: of each output token, the negative mean of its largest log-probabilities.
        logprobs: log-probability of each output token, where asked for.
        reward: of a `score` request: how good the text is as an answer, or as its beginning, 0 to 1.
        error: what went wrong, where `finish_reason` is `error`.
        scored: each output token, where `alternatives` were asked for.
    """

    request: str
    text: str
    tokens: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: FinishReason = "stop"
    confidence: Sequence[float] | None = None
    logprobs: Sequence[float] | None = None
    reward: float | None = None
    error: str | None = None
    scored: Sequence[ScoredToken] = ()


Event = Progress | Generation


class Certainty(NamedTuple):
    """How sure a program is: a value in [0, 1], by which measure, on how many answers."""

    value: float
    measure: str
    evidence: int


class Candidate(NamedTuple):
    """One answer with its votes (samples), its weight and one text that led to it."""

    answer: str
    votes: int
    weight: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The best answer now, and the candidates in order of weight (the first is the answer)."""

    value: str | None
    candidates: tuple[Candidate, ...] = ()


class Program(Protocol):
    """A reasoning algorithm at work on one query."""

    @property
    def id(self) -> str:
        """Name of the query; all its requests carry it."""
        ...

    def propose(self, n: int) -> list[Request]:
        """At most `n` requests worth running now; empty when it waits or has nothing to try."""
        ...

    def follow_ups(self) -> list[Request]:
        """Requests that belong to work already granted, such as a probe of a chain that runs or the
        reward of a sample that ended: they start at once and take no place of other work."""
        ...

    def conclude(self) -> list[Request]:
        """Requests that the answer still needs now that the query has stopped; mostly none.

        Asked once, at every stop but that of a deadline, after which only these requests' events
        come. Their kind is `answer`.
        """
        ...

    def receive(self, event: Event) -> None:
        """Fold one event in. A request that it proposed ends in exactly one `Generation`."""
        ...

    def cancelled(self) -> list[str]:
        """Ids of running requests that the program no longer needs; each is named once."""
        ...

    def votes(self) -> Votes:
        """The evidence so far, for the stop rule: one entry for each finished answer, be it a
        sample's, a probe's or a leaf's. A program without rival answers has no entries, and then no
        rule stops it."""
        ...

    def certainty(self) -> Certainty:
        """How sure it is now."""
        ...

    def answer(self) -> Answer:
        """The best answer now."""
        ...

    def remaining(self) -> int:
        """How many more requests the full budget would use, those in flight not included."""
        ...
