"""AgentWrite: a long text by a plan, part after part, each with its budget of words.

Bai et al., "LongWriter: Unleashing 10,000+ Word Generation from Long Context LLMs", 2024. The model
first plans the parts with their lengths, then writes each with the plan and the text so far in view.
Beyond the paper: parts that the plan marks as independent are written at the same time, and a part
that misses its length by too much is written again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from algorithms.program import (
    Answer,
    Candidate,
    Certainty,
    Event,
    Generation,
    Prompt,
    Request,
    Sampling,
)
from algorithms.writing_plan import (
    Part,
    again_prompt,
    fitted,
    plain_prompt,
    planning_prompt,
    read_plan,
    without_number,
    writing_prompt,
)
from certaindex.length import count_words, length_score
from certaindex.votes import Votes

TOKENS_A_WORD = 2.0
"""Room for a part's words, in tokens; English needs some 1.3, other languages more."""
PLAN_TOKENS = 2048
"""Longest plan; a short text's has room for 256 and one for each of its words."""
WORTH_SHOWING = 0.1
"""Share of its words from which on an attempt is shown to who writes the part again; what is shorter is
no attempt but a refusal, and would be repeated. Then the part is asked for in fewer words."""


@dataclass(frozen=True, slots=True)
class Care:
    """How much is done for a text's length.

    Attributes:
        tolerance: share of its words that a part may be off before it is written again.
        attempts: at most for each part, and for the plan.
        parallel: write independent parts at the same time.
    """

    tolerance: float = 0.3
    attempts: int = 3
    parallel: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 10:
            raise ValueError(f"tolerance must be above 0 and below 10, not {self.tolerance}")
        if self.attempts < 1:
            raise ValueError(f"attempts must be 1 or more, not {self.attempts}")


@dataclass(slots=True)
class _Writing:
    """A part at work: its best attempt so far, and whether it is done."""

    part: Part
    text: str = ""
    attempts: int = 0
    running: bool = False
    done: bool = False
    prompt: str = field(default="", repr=False)

    @property
    def words(self) -> int:
        return count_words(self.text)

    @property
    def off(self) -> float:
        """Distance from its budget, as a share of it."""
        return abs(self.words - self.part.words) / self.part.words

    @property
    def fit(self) -> tuple[float, float]:
        """How well it keeps to its budget, more is better: S_l, which forgives what is a bit too long
        sooner than a refusal of few words."""
        return length_score(self.part.words, self.words), -self.off


class AgentWrite:
    """A plan, then its parts. There are no rival answers, so no stop rule ends it early.

    A plan that cannot be read is asked for again, and at last replaced by a single part. Of the
    attempts at a part the one with the best length score is kept. A part that came to nothing in all
    of its attempts stays empty, which certainty shows.

    Args:
        id: name of the query.
        instruction: what to write.
        words: how long the whole should be.
        sampling: of each request; its `max_tokens` is the longest part.
        care: for lengths.
    """

    def __init__(
        self, id: str, instruction: str, *, words: int, sampling: Sampling, care: Care
    ) -> None:
        if words < 1:
            raise ValueError(f"words must be 1 or more, not {words}")
        self._id = id
        self._instruction = instruction
        self._words = words
        self._sampling = sampling
        self._care = care
        self._parts: list[_Writing] = []
        self._planning = False
        self._plans = 0
        self._requests: dict[str, int | None] = {}  # running request -> its part; None: the plan
        self._count = 0

    @property
    def id(self) -> str:
        """Name of the query."""
        return self._id

    @property
    def plan(self) -> tuple[Part, ...]:
        """The parts with their words; empty before it is there."""
        return tuple(writing.part for writing in self._parts)

    @property
    def texts(self) -> tuple[str, ...]:
        """The best text of each part so far."""
        return tuple(writing.text for writing in self._parts)

    def propose(self, n: int) -> list[Request]:
        """The plan, then the next parts that can be written."""
        if n < 1:
            return []
        if not self._parts:
            if self._planning:
                return []
            self._planning = True
            self._plans += 1
            room = min(PLAN_TOKENS, 256 + self._words)
            return [self._request(planning_prompt(self._instruction, self._words), room)]
        return [self._write(number) for number in self._ready()[:n]]

    def _ready(self) -> list[int]:
        """Parts that can be begun: the first that is not done, and independent ones after it."""
        ready = []
        before_is_done = True
        for number, writing in enumerate(self._parts):
            free = before_is_done or (self._care.parallel and writing.part.independent)
            if free and not writing.done and not writing.running:
                ready.append(number)
            before_is_done = before_is_done and writing.done
        return ready

    def _write(self, number: int) -> Request:
        writing = self._parts[number]
        if not writing.prompt:
            alone = self._care.parallel and writing.part.independent
            before = "" if alone else "\n\n".join(self.texts[:number]).strip()
            writing.prompt = writing_prompt(self._instruction, self.plan, number, before)
        prompt, wanted = writing.prompt, writing.part.words
        if writing.words > WORTH_SHOWING * wanted:
            prompt = again_prompt(prompt, writing.text, writing.words, wanted)
        elif writing.attempts and len(self._parts) > 1:
            prompt = plain_prompt(self._instruction, writing.part)
        writing.attempts += 1
        writing.running = True
        return self._request(prompt, round(TOKENS_A_WORD * wanted) + 64, number)

    def _request(self, prompt: str, tokens: int, part: int | None = None) -> Request:
        sampling = replace(self._sampling, max_tokens=min(tokens, self._sampling.max_tokens))
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + self._count)
        chat: Prompt = ({"role": "user", "content": prompt},)
        request = Request(
            id=f"{self._id}#write-{self._count}",
            program=self._id,
            prompt=chat,
            sampling=sampling,
            index=self._count,
            kind="step",
        )
        self._count += 1
        self._requests[request.id] = part
        return request

    def receive(self, event: Event) -> None:
        """Read the plan, or judge a part."""
        if not isinstance(event, Generation):
            return
        number = self._requests.pop(event.request)
        text = event.text.strip() if event.finish_reason in ("stop", "length") else ""
        if number is None:
            self._take_plan(text)
        else:
            self._take_part(self._parts[number], without_number(text))

    def _take_plan(self, text: str) -> None:
        self._planning = False
        plan = read_plan(text)
        if not plan and self._plans < self._care.attempts:
            return  # it is asked for again
        if not plan:
            plan = [Part("all of the text", self._words)]
        self._parts = [_Writing(part) for part in fitted(plan, self._words)]

    def _take_part(self, writing: _Writing, text: str) -> None:
        writing.running = False
        attempt = replace(writing, text=text)
        if text and (not writing.text or attempt.fit > writing.fit):
            writing.text = text
        fits = bool(writing.text) and writing.off <= self._care.tolerance
        writing.done = fits or writing.attempts >= self._care.attempts

    def follow_ups(self) -> list[Request]:
        """Nothing."""
        return []

    def conclude(self) -> list[Request]:
        """Nothing: the parts are the text."""
        return []

    def cancelled(self) -> list[str]:
        """Nothing."""
        return []

    def votes(self) -> Votes:
        """None: there are no rival answers."""
        return Votes(max_samples=max(1, len(self._parts)))

    def certainty(self) -> Certainty:
        """Coverage of the plan times the mean length score (S_l) of its written parts."""
        written = [writing for writing in self._parts if writing.text]
        if not written:
            return Certainty(0.0, "plan", 0)
        scores = [length_score(writing.part.words, writing.words) for writing in written]
        coverage = len(written) / len(self._parts)
        return Certainty(coverage * sum(scores) / len(scores) / 100, "plan", len(written))

    def answer(self) -> Answer:
        """The parts that are written, in the order of the plan."""
        text = "\n\n".join(text for text in self.texts if text)
        return Answer(text, (Candidate(text, 1, 1.0, text),)) if text else Answer(None)

    def remaining(self) -> int:
        """Requests at the most, those in flight not included."""
        if not self._parts:
            return self._care.attempts
        left = sum(self._care.attempts - w.attempts for w in self._parts if not w.done)
        return left if not all(writing.done for writing in self._parts) else 0
