"""Dynasor-CoT: one long chain of thought, probed for its answer while it is written.

Fu et al., "Reasoning Without Self-Doubt: More Efficient Chain-of-Thought Through Certainty Probing",
2025. Every `interval` tokens the text so far is given to the model once more, followed by a request
for the final answer now. The probes are the votes of this program: a rule such as `stable:3` ends
the chain when the last three agree. Then the thought is closed and the answer asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from algorithms.ballot import Ballot
from algorithms.program import (
    Answer,
    Candidate,
    Certainty,
    Event,
    Generation,
    Progress,
    Request,
)
from algorithms.task import Task
from certaindex.hedging import hedges
from certaindex.rules.stable import last_agreement
from certaindex.votes import Votes

EFFORT: dict[str, tuple[int, int]] = {
    "mild": (8, 64),
    "low": (5, 64),
    "mid": (3, 64),
    "high": (2, 64),
    "extreme": (2, 32),
}
"""How hard tokens are saved: the probes that must agree, and the tokens between two of them."""


@dataclass(frozen=True, slots=True)
class Probing:
    """How a chain is asked for its answer.

    Attributes:
        window: probes in a row that must agree; for `certainty`, the stop is the rule's decision.
        interval: tokens of the chain between two probes.
        question: is put after the unfinished chain; the model goes on with the answer.
        tokens: longest answer to a probe.
        closing: ends the thought after a stop and asks for the answer.
        answer_tokens: longest text after `closing`.
    """

    window: int = 3
    interval: int = 64
    question: str = (
        "... Oh, I suddenly got the answer to the whole problem, **Final Answer**\n\n\\[ \\boxed{"
    )
    tokens: int = 20
    closing: str = "\n</think>\n\n**Final Answer**\n\n\\[ \\boxed{"
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f"window must be 2 or more, not {self.window}")
        for name in ("interval", "tokens", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 token or more, not {getattr(self, name)}")
        if not self.question or not self.closing:
            raise ValueError("question and closing must not be empty")


class Probe(NamedTuple):
    """A probe that has come back: tokens of the chain before it, its own, and what it answered; and the
    tokens of its prompt (all of the text so far), and how many of these the engine had in its cache."""

    chain_tokens: int
    tokens: int
    answer: str | None
    prompt_tokens: int = 0
    cached_tokens: int = 0


class DynasorCot:
    """One chain, its probes and its answer.

    A probe that was answered with nothing, that hedges (`certaindex.hedging`), or that failed is a
    vote for no answer, so it breaks a row of probes that agree. The answer is that which the chain
    gives at its own end, else that of the closing request, else the last probe's.

    Args:
        task: what is asked; `task.sampling` is that of the chain, its `max_tokens` the full budget, and
            `task.extract` must be able to read what the question of a probe begins.
        probing: how and how often it is asked.
    """

    def __init__(
        self,
        task: Task,
        *,
        probing: Probing,
    ) -> None:
        self._task = task
        self._probing = probing
        self._ballot = Ballot(ceil(task.sampling.max_tokens / probing.interval), task.groups)
        self._chain: str | None = None  # id of its request
        self._ended = False
        self._text = ""  # of the chain, at the last probe or at its end
        self._probed = 0  # tokens of the chain at the last probe
        self._waiting: list[Request] = []  # probes to start
        self._asked: dict[str, tuple[int, int]] = {}  # running probe -> index, tokens before it
        self._answers: dict[int, Generation] = {}  # ended probes that wait for an earlier one
        self._costs: dict[int, int] = {}
        self._counted = 0
        self._probes: list[Probe] = []
        self._cut: list[str] = []
        self._final: tuple[str, str] | None = None  # answer and text
        self._last: tuple[str, str] | None = None  # of the last probe that gave one
        self.probe_tokens = 0
        """Output tokens of all probes so far, those that came too late included."""

    @property
    def id(self) -> str:
        """Name of the query."""
        return self._task.id

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The probes so far, in the order of the chain."""
        return tuple(self._probes)

    def propose(self, n: int) -> list[Request]:
        """The chain, once."""
        if n < 1 or self._chain is not None:
            return []
        self._chain = f"{self._task.id}#chain"
        self.votes().in_flight = 1
        return [
            Request(
                id=self._chain,
                program=self._task.id,
                prompt=self._task.prompt,
                sampling=self._task.sampling,
                kind="step",
                report_every=self._probing.interval,
            )
        ]

    def receive(self, event: Event) -> None:
        """Probe a chain that has grown, count a probe, or take the answer."""
        if isinstance(event, Progress):
            self._grow(event)
        elif event.request == self._chain:
            self._end(event)
        elif event.request in self._asked:
            self._probe_ended(event)
        else:
            self._conclude(event)

    def _grow(self, event: Progress) -> None:
        grown = event.tokens - self._probed
        if event.request != self._chain or self._ended or grown < self._probing.interval:
            return
        self._text, self._probed = event.text, event.tokens
        index = len(self._costs)
        request = Request(
            id=f"{self._task.id}#probe-{index}",
            program=self._task.id,
            prompt=self._task.prompt,
            sampling=replace(
                self._task.sampling,
                temperature=0.0,
                top_p=1.0,
                max_tokens=self._probing.tokens,
                stop=(),
            ),
            index=index,
            kind="probe",
            prefix=event.text + self._probing.question,
        )
        self._costs[index] = grown
        self._asked[request.id] = (index, grown)
        self._waiting.append(request)

    def _probe_ended(self, event: Generation) -> None:
        """Count the probes in the order of the chain, however they end."""
        index, _ = self._asked.pop(event.request)
        self.probe_tokens += event.tokens
        if self._ended:
            return  # the chain has answered itself
        self._answers[index] = event
        while (done := self._answers.pop(self._counted, None)) is not None:
            answer = self._read(done)
            text = self._probing.question + done.text
            tokens = self._costs[self._counted] + done.tokens
            self._ballot.count(answer, text, tokens)
            self._last = self._last if answer is None else (answer, text)
            before = self._probes[-1].chain_tokens if self._probes else 0
            chain = before + self._costs[self._counted]
            self._probes.append(
                Probe(chain, done.tokens, answer, done.prompt_tokens, done.cached_tokens)
            )
            self._counted += 1

    def _read(self, probe: Generation) -> str | None:
        if probe.finish_reason not in ("stop", "length") or hedges(probe.text):
            return None
        answer = self._task.extract(self._probing.question + probe.text)
        return answer if answer is not None and answer.strip() else None

    def _end(self, event: Generation) -> None:
        """The chain ended by itself: what it says goes before any probe."""
        self._ended = True
        self.votes().in_flight = 0
        self._waiting.clear()
        self._cut = sorted(self._asked)
        if len(event.text) > len(self._text):
            self._text = event.text
        if event.finish_reason in ("stop", "length"):
            answer = self._task.extract(event.text)
            self._final = None if answer is None else (answer, event.text)

    def _conclude(self, event: Generation) -> None:
        if event.finish_reason not in ("stop", "length"):
            return
        text = self._probing.closing + event.text
        answer = self._task.extract(text)
        if answer is not None and answer.strip():
            self._final = (answer, self._text + text)

    def follow_ups(self) -> list[Request]:
        """The probes that are due."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def conclude(self) -> list[Request]:
        """The request for the answer, unless the chain has given it."""
        if self._final is not None or self._chain is None:
            return []
        limit = self._probing.answer_tokens
        return [
            Request(
                id=f"{self._task.id}#answer",
                program=self._task.id,
                prompt=self._task.prompt,
                sampling=replace(self._task.sampling, temperature=0.0, top_p=1.0, max_tokens=limit),
                kind="answer",
                prefix=self._text + self._probing.closing,
            )
        ]

    def cancelled(self) -> list[str]:
        """Probes that still run when the chain has ended."""
        cut, self._cut = self._cut, []
        return cut

    def votes(self) -> Votes:
        """The probes: what they cost is their own tokens and those of the chain before them."""
        return self._ballot.votes

    def certainty(self) -> Certainty:
        """Share of the last `window` probes that gave the last answer."""
        votes = self.votes()
        return Certainty(last_agreement(votes, self._probing.window), "probes", votes.n)

    def answer(self) -> Answer:
        """The chain's own answer, or that of the closing request, or the last probe's."""
        probed = self._ballot.answer().candidates
        best = self._final or self._last
        if best is None:
            return Answer(None, probed)
        value, text = best
        votes = next((c.votes for c in probed if c.answer == value), 0)
        rivals = tuple(c for c in probed if c.answer != value)
        return Answer(value, (Candidate(value, votes, float(votes), text), *rivals))

    def remaining(self) -> int:
        """1 before the chain has begun."""
        return int(self._chain is None)
