"""How good rankers are on examples that they did not learn from, next to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynasor.intervals import Interval
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.metrics import (
    Floats,
    checked_scores,
    checked_tokens,
    kendall_tau,
    ndcg,
    shortest_overlap,
    spearman,
)
from dynasor.ranking.queue_simulation import ORACLE, Comparison, Traffic, compare_orders
from dynasor.ranking.ranker import Ranker
from dynasor.ranking.resampling import Picks, interval, resample

SHORTEST = (0.1, 0.25)
"""Shares of the prompts that count as the shortest."""
LOAD = 0.9
_QUEUES = 8  # runs of the queue, of 2,000 requests each
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one ranker reached; intervals are 95%, bootstrap over conversations or runs of the queue.

    Attributes:
        model: name of the ranker.
        tau: Kendall's tau-b of scores and tokens.
        tau_change: its tau minus that of the first ranker in the list; None for that one.
        spearman, ndcg: see `dynasor.ranking.metrics`.
        shortest: share of the prompts -> how many of the shortest were found.
        latency_ratio_to_fcfs: mean latency of FCFS / of shortest predicted first; above 1 is a gain.
        latency_ratio_to_oracle: mean latency of shortest predicted first / of shortest first.
        share_of_gain: (FCFS - predicted) / (FCFS - oracle), in mean latency.
    """

    model: str
    n: int
    tau: float
    tau_interval: Interval
    tau_change: float | None
    tau_change_interval: Interval | None
    spearman: float
    spearman_interval: Interval
    ndcg: float
    ndcg_interval: Interval
    shortest: dict[float, float]
    latency_ratio_to_fcfs: float
    latency_ratio_to_fcfs_interval: Interval
    latency_ratio_to_oracle: float
    share_of_gain: float
    share_of_gain_interval: Interval

    def to_json(self) -> dict[str, Any]:
        """The figures; intervals are under `intervals`."""
        return {
            "n": self.n,
            "tau": self.tau,
            "spearman": self.spearman,
            "ndcg": self.ndcg,
            "latency_ratio_to_fcfs": self.latency_ratio_to_fcfs,
            "latency_ratio_to_oracle": self.latency_ratio_to_oracle,
            "model": self.model,
            "share_of_gain": self.share_of_gain,
            "tau_change": self.tau_change,
            "shortest": {f"{share:.0%}": found for share, found in self.shortest.items()},
            "intervals": {
                "tau": self.tau_interval,
                "tau_change": self.tau_change_interval,
                "spearman": self.spearman_interval,
                "ndcg": self.ndcg_interval,
                "latency_ratio_to_fcfs": self.latency_ratio_to_fcfs_interval,
                "share_of_gain": self.share_of_gain_interval,
            },
        }


def score_all(
    ranker: Ranker,
    examples: Sequence[LengthExample],
    progress: Callable[[int], None] = lambda scored: None,
) -> Floats:
    """Scores of all prompts, in batches; (n,) float64.

    Raises:
        DataError: if a score is no finite number.
    """
    parts = []
    for start in range(0, len(examples), _BATCH):
        batch = [example.prompt for example in examples[start : start + _BATCH]]
        parts.append(ranker.score(batch))
        progress(len(batch))
    return checked_scores(np.concatenate(parts), len(examples), ranker.name)


def evaluate(
    scores: dict[str, Floats],
    examples: Sequence[LengthExample],
    *,
    draws: int = 1000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Evaluation]:
    """Figures of each ranker, in the order given.

    Args:
        scores: name of a ranker -> its scores, (n,), see `score_all`.
        examples: what they were scored on; lengths that a limit cut are treated as lower bounds.
        draws: bootstrap data sets.
        seed: of draws and queues; all rankers see the same ones.
        progress: told the number of rankers done.

    Raises:
        DataError: if there is no order to predict.
    """
    judge = _Judge(examples, draws, seed)
    queue = compare_orders(
        {_QUEUED + name: each for name, each in scores.items()},
        judge.tokens,
        Traffic(LOAD),
        repeats=_QUEUES,
        seed=seed,
    )
    found: list[Evaluation] = []
    for name, each in scores.items():
        found.append(judge.evaluation(name, each, queue))
        progress(len(found))
    return found


_QUEUED = "ranker "
"""Keeps names of rankers apart from `fcfs` and `oracle`."""


class _Judge:
    """Measures one ranker after the other on the same draws, and compares them with the first."""

    def __init__(self, examples: Sequence[LengthExample], draws: int, seed: int) -> None:
        self.tokens = checked_tokens([example.tokens for example in examples])
        self._cut = np.array([example.cut > 0 for example in examples])
        self._groups = [example.conversation for example in examples]
        self._draws, self._seed = draws, seed
        self._first: tuple[float, Floats] | None = None

    def evaluation(self, name: str, scores: Floats, queue: Comparison) -> Evaluation:
        tau, taus = self._measure(
            scores, lambda s, at: kendall_tau(s, self.tokens[at], self._cut[at])
        )
        rho, rhos = self._measure(scores, lambda s, at: spearman(s, self.tokens[at]))
        gain, gains = self._measure(scores, lambda s, at: ndcg(s, self.tokens[at]))
        queued = _QUEUED + name
        to_fcfs, to_fcfs_interval = queue.speedup(queued)
        share, share_interval = queue.share_of_gain(queued)
        first = self._first
        self._first = first or (tau, taus)
        return Evaluation(
            model=name,
            n=len(scores),
            tau=tau,
            tau_interval=interval(taus),
            tau_change=None if first is None else tau - first[0],
            tau_change_interval=None if first is None else interval(taus - first[1]),
            spearman=rho,
            spearman_interval=interval(rhos),
            ndcg=gain,
            ndcg_interval=interval(gains),
            shortest={part: shortest_overlap(scores, self.tokens, part) for part in SHORTEST},
            latency_ratio_to_fcfs=to_fcfs,
            latency_ratio_to_fcfs_interval=to_fcfs_interval,
            latency_ratio_to_oracle=queue.speedup(ORACLE, queued)[0],
            share_of_gain=share,
            share_of_gain_interval=share_interval,
        )

    def _measure(
        self, scores: Floats, measure: Callable[[Floats, Picks], float]
    ) -> tuple[float, Floats]:
        """The measure on all examples, and on the bootstrap data sets."""
        everything = np.arange(len(scores))
        draws = resample(
            lambda at: measure(scores[at], at), self._groups, draws=self._draws, seed=self._seed
        )
        return measure(scores, everything), draws
