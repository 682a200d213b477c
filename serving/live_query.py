"""One query while it runs: what streams, the live page and the metrics see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

from algorithms.agentwrite import AgentWrite
from algorithms.chat import Chat
from algorithms.program import Event, Generation, Program, Progress, Request
from dynasor.outcome import Outcome
from serving.openai_responses import (
    Certainty,
    CompletionTokensDetails,
    PromptTokensDetails,
    Report,
    TokenBreakdown,
    Usage,
)
from serving.reasoning_plan import Plan
from serving.token_tally import TokenTally

FORESEEN = ("self-consistency", "best-of-n", "deepconf", "short-m-of-k")
"""Algorithms whose samples are alike, so that what the rest would cost can be told."""
SHOWN_VOTES = 16
LONGEST_ANSWER = 200
"""Answers of a report and their characters: a hostile text must not fill it."""


class LiveQuery:
    """An observer of the runtime for one query.

    Args:
        plan: what is done.
        program: that does it.
        client: name of the key that asked.
    """

    def __init__(self, plan: Plan, program: Program, client: str) -> None:
        self.plan = plan
        self.program = program
        self.client = client
        self.arrival = monotonic()
        self.first_token: float | None = None
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.curve: list[float] = []
        """Certainty after each finished sample."""
        self.news = asyncio.Event()
        """Set when something happened; whoever reads it clears it."""
        self.over = asyncio.Event()
        """Set at the end."""
        self.ended = False
        """Whether the client has all of it, or left."""
        self._answer = program.answer()
        self._certainty = program.certainty()
        self._budget = program.votes().max_samples
        self._tally = TokenTally()

    def received(self, program: Program, request: Request, event: Event) -> None:
        """Note an event."""
        if self.first_token is None and event.tokens:
            self.first_token = monotonic() - self.arrival
        if isinstance(event, Progress):
            self._tally.progress(event)
        else:
            self._tally.ended(request, event)
            finished = program.votes().n
            if finished > len(self.curve):
                self._certainty = program.certainty()
                fresh = finished - len(self.curve)
                self.curve += [round(self._certainty.value, 4)] * fresh
            if self.plan.has_votes:
                self._answer = program.answer()
        self.news.set()

    def stopped(self, program: Program, outcome: Outcome) -> None:
        """Note the end."""
        self.outcome = outcome
        self._answer, self._certainty = outcome.answer, outcome.certainty
        self.over.set()
        self.news.set()

    def failed(self, error: Exception) -> None:
        """Note that there will be no outcome."""
        self.error = error
        self.over.set()
        self.news.set()

    @property
    def tokens_now(self) -> int:
        """Output tokens so far, those of running samples included as far as they were told."""
        return self._tally.now

    @property
    def choices(self) -> Sequence[Generation | Progress | None]:
        """The answers of a plain request as far as they are."""
        assert isinstance(self.program, Chat)
        return self.program.choices

    def chosen_text(self) -> str:
        """Text of the answer: that which gave it; the first sample where none gave any."""
        candidates = self._answer.candidates
        if candidates:
            return candidates[0].text
        return self._tally.first if self.plan.has_votes else ""

    def saved(self) -> int:
        """Expected output tokens of the full budget that were not spent; 0 where that is not known."""
        votes = self.program.votes()
        if not votes.n or self.plan.algorithm not in FORESEEN:
            return 0
        spent = self.outcome.bill.output if self.outcome else self.tokens_now
        return max(0, round(self.plan.samples * votes.total_tokens / votes.n) - spent)

    def report(self) -> Report:
        """What clients are told."""
        outcome, answer, certainty = self.outcome, self._answer, self._certainty
        compared = self.plan.has_votes
        reason = None if outcome is None else outcome.reason
        if self.plan.plain and reason == "certain":
            reason = "complete"  # all that was asked for is there
        return Report(
            query=self.plan.id,
            algorithm=self.plan.algorithm,
            state="running" if outcome is None else "done",
            answer=answer.value[:LONGEST_ANSWER] if compared and answer.value is not None else None,
            votes={c.answer[:LONGEST_ANSWER]: c.votes for c in answer.candidates[:SHOWN_VOTES]}
            if compared
            else {},
            certaindex=Certainty(
                value=certainty.value, measure=certainty.measure, evidence=certainty.evidence
            ),
            samples=self.program.votes().n,
            budget=self._budget,
            stopped=reason,
            best_so_far=reason in ("deadline", "budget"),
            failed=0 if outcome is None else outcome.failed,
            scored=self._tally.scored,
            tokens=None if outcome is None else self._breakdown(outcome),
            seconds=round(monotonic() - self.arrival if outcome is None else outcome.seconds, 3),
        )

    def _breakdown(self, outcome: Outcome) -> TokenBreakdown:
        if self.plan.plain:
            return TokenBreakdown(
                answer=outcome.bill.output, other_samples=0, probes=0, cut=0, saved=0
            )
        answer = sum(self._tally.of(text) for text in self._texts())
        probes, kept = self._tally.probes, min(self._tally.kept, outcome.bill.cut)
        return TokenBreakdown(
            answer=answer,
            other_samples=max(0, outcome.bill.finished - probes - (answer - kept)),
            probes=probes,
            cut=outcome.bill.cut - kept,
            saved=self.saved(),
        )

    def _texts(self) -> Sequence[str]:
        """What the answer's text is made of."""
        if isinstance(self.program, AgentWrite):
            return self.program.texts
        return [self.chosen_text()]

    def usage(self) -> Usage:
        """All tokens of the query, in OpenAI's terms."""
        assert self.outcome is not None, "usage is known at the end"
        bill = self.outcome.bill
        return Usage(
            prompt_tokens=bill.prompt,
            completion_tokens=bill.output,
            total_tokens=bill.prompt + bill.output,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=bill.cached),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=bill.output - self._breakdown(self.outcome).answer
            ),
        )

    def as_shown(self) -> dict[str, Any]:
        """For the live page."""
        report = self.report()
        return {
            "id": self.plan.id[-8:],
            "model": self.plan.model,
            "algorithm": self.plan.algorithm,
            "client": self.client,
            "samples": report.samples,
            "budget": report.budget,
            "in_flight": self.program.votes().in_flight,
            "votes": report.votes,
            "curve": self.curve[-64:],
            "running": not self.ended,
            "stopped": report.stopped,
            "tokens": self.outcome.bill.output if self.outcome else self.tokens_now,
            "saved": self.saved(),
            "seconds": report.seconds,
        }
