"""DeepConf: votes weighed and filtered by the model's own confidence, and weak traces cut early.

Fu et al., "Deep Think with Confidence", 2025. A trace is as confident as a statistic of its sliding
groups of tokens says (`certaindex.confidence`). Offline, all traces run to their end and only the
most confident share of them votes. Online, some warm-up traces run to their end and set a threshold;
a later trace whose current group falls below it is cut while it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from algorithms.program import Event, Generation, Progress, Request
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.confidence import confidence_statistics, group_means

Statistic = Literal["mean", "lowest_group", "tail", "bottom_tenth"]


@dataclass(frozen=True, slots=True)
class Confidence:
    """How the confidence of a trace is taken, and how much of it is asked for.

    Attributes:
        statistic: of the trace that weighs its vote, and offline also filters it.
        keep: share of the traces, the most confident ones, that vote: 0.1 for DeepConf-low, 0.9 for
            DeepConf-high, 1 for no filter.
        group: tokens a sliding group.
        tail: tokens at the end that the statistic `tail` looks at.
        warm_up: traces that run to their end before any is cut; 0 for offline.
        report_every: tokens between two looks at a trace that may be cut.
    """

    statistic: Statistic = "lowest_group"
    keep: float = 0.9
    group: int = 2048
    tail: int = 2048
    warm_up: int = 0
    report_every: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be above 0 and at most 1, not {self.keep}")
        for name in ("group", "tail", "report_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 token or more, not {getattr(self, name)}")
        if self.warm_up < 0:
            raise ValueError(f"warm_up must be 0 or more, not {self.warm_up}")

    def of(self, trace: Sequence[float]) -> float:
        """The statistic of one trace, nats; (tokens,) confidence of each token, 1 or more."""
        statistics = confidence_statistics(trace, group=self.group, tail=self.tail)
        return float(getattr(statistics, self.statistic))


@dataclass(frozen=True, slots=True)
class _Trace:
    """A trace that finished: its answer's group and what decides on its vote."""

    group: int | None
    tokens: int
    weight: float  # what its vote counts
    surety: float  # what the filter looks at


class DeepConf(SelfConsistency):
    """Confidence-weighted vote over the most confident of at most `samples` traces.

    A trace without confidence (the engine gave none) weighs 0 and is never cut. A trace that
    was cut or filtered counts as a sample without an answer, so rules see that it was tried.

    Args:
        confidence: how traces are judged.
        task, samples: see `SelfConsistency`; `task.sampling` must ask for `top_logprobs`.
    """

    def __init__(
        self,
        task: Task,
        *,
        samples: int,
        confidence: Confidence,
    ) -> None:
        if task.sampling.top_logprobs < 1:
            raise ValueError("sampling.top_logprobs must be 1 or more: DeepConf looks at them")
        super().__init__(task, samples=samples)
        self._confidence = confidence
        self._traces: list[_Trace] = []
        self._empty = 0  # requests that gave nothing to judge
        self._threshold: float | None = None
        self._looked: dict[str, int] = {}  # running trace -> tokens already looked at
        self._cut: list[str] = []
        self._judged: set[str] = set()  # those that were cut by us

    @property
    def threshold(self) -> float | None:
        """The group confidence under which a trace is cut; None while it is not known."""
        return self._threshold

    def propose(self, n: int) -> list[Request]:
        """The next traces; after the warm-up none before all of it has finished."""
        warm_up = self._confidence.warm_up
        if not warm_up:
            return super().propose(n)
        if self._threshold is None:
            return super().propose(min(n, max(0, warm_up - self._proposed)))
        watched = self._confidence.report_every
        return [replace(request, report_every=watched) for request in super().propose(n)]

    def receive(self, event: Event) -> None:
        """Judge a trace that runs, or count one that has finished."""
        if isinstance(event, Progress):
            self._watch(event)
            return
        self._running.remove(event.request)
        cut = event.request in self._judged
        if event.finish_reason == "error" or (event.finish_reason == "aborted" and not cut):
            self._empty += 1
        else:
            self._traces.append(self._judge(event, cut))
        self._warm()
        self._recount()

    def _judge(self, event: Generation, cut: bool) -> _Trace:
        if cut:
            return _Trace(None, event.tokens, 0.0, -np.inf)
        group = self._ballot.group(self._task.extract(event.text), event.text)
        if not event.confidence:
            return _Trace(group, event.tokens, 0.0, -np.inf)
        surety = weight = max(0.0, self._confidence.of(event.confidence))
        if self._confidence.warm_up:
            surety = float(group_means(event.confidence, self._confidence.group).min())
        return _Trace(group, event.tokens, weight, surety)

    def _warm(self) -> None:
        """Set the threshold when the warm-up is over."""
        warm_up = min(self._confidence.warm_up, self._samples)
        if not warm_up or self._threshold is not None or len(self._traces) + self._empty < warm_up:
            return
        sure = [trace.surety for trace in self._traces if trace.surety > -np.inf]
        least = float(np.quantile(sure, 1 - self._confidence.keep)) if sure else -np.inf
        self._threshold = least

    def _watch(self, event: Progress) -> None:
        """Cut a trace whose newest groups fall below the threshold."""
        if self._threshold is None or not event.confidence or event.request in self._judged:
            return
        group, seen = self._confidence.group, self._looked.get(event.request, 0)
        if len(event.confidence) < group:
            return  # no whole group yet
        fresh = event.confidence[max(0, seen - group + 1) :]
        self._looked[event.request] = len(event.confidence)
        if float(group_means(fresh, group).min()) < self._threshold:
            self._judged.add(event.request)
            self._cut.append(event.request)

    def _recount(self) -> None:
        """Count the votes anew: which traces are among the most confident changes with each."""
        self._ballot.clear()
        votes = self.votes()
        votes.max_samples = self._samples - self._empty
        votes.in_flight = len(self._running)
        least = self._least()
        for trace in self._traces:
            kept = trace.surety >= least or trace.surety == -np.inf
            self._ballot.count_group(trace.group if kept else None, trace.tokens, trace.weight)

    def _least(self) -> float:
        """The confidence that a vote needs now."""
        if self._confidence.warm_up:
            return -np.inf if self._threshold is None else self._threshold
        sure = [trace.surety for trace in self._traces if trace.surety > -np.inf]
        return float(np.quantile(sure, 1 - self._confidence.keep)) if sure else -np.inf

    def cancelled(self) -> list[str]:
        """Traces that were found too weak."""
        cut, self._cut = self._cut, []
        return cut
