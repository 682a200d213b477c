"""Best-of-N: many samples, a reward for each, and the answer that the rewards are for.

Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021 (the best one); Li et al., "Making
Large Language Models Better Reasoners with Step-Aware Verifier", 2023 (votes weighed by reward).
"""

from __future__ import annotations

from typing import Literal

from algorithms.program import Certainty, Event, Generation, Request, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.reward import reward_certaindex

Selection = Literal["weighted", "best"]


class BestOfN(SelfConsistency):
    """At most `samples` samples, each scored when it has ended.

    A sample counts when its reward is there. One whose reward failed is no evidence, like one that
    the engine failed.

    Args:
        select: `weighted` sums the rewards of equal answers, `best` takes the answer of the single
            sample with the largest reward.
        task, samples: see `SelfConsistency`.
    """

    def __init__(
        self,
        task: Task,
        *,
        samples: int,
        select: Selection = "weighted",
    ) -> None:
        super().__init__(task, samples=samples)
        self._select = select
        self._index: dict[str, int] = {}  # running sample -> its index
        self._to_score: list[Request] = []
        self._scored: dict[str, Generation] = {}  # score request -> the sample that it is for

    def propose(self, n: int) -> list[Request]:
        """The next samples."""
        requests = super().propose(n)
        self._index |= {request.id: request.index for request in requests}
        return requests

    def receive(self, event: Event) -> None:
        """Have a finished sample scored, or count a scored one."""
        if not isinstance(event, Generation):
            return
        if event.request in self._scored:
            self._count(self._scored.pop(event.request), event.reward)
        else:
            self._ended(event)
        self.votes().in_flight = len(self._running) + len(self._scored)

    def _ended(self, event: Generation) -> None:
        self._running.remove(event.request)
        index = self._index.pop(event.request)
        if event.finish_reason in ("aborted", "error"):
            self.votes().max_samples -= 1
            return
        request = Request(
            id=f"{self._task.id}#score-{index}",
            program=self._task.id,
            prompt=self._task.prompt,
            sampling=Sampling(max_tokens=1),
            index=index,
            kind="score",
            prefix=event.text,
        )
        self._scored[request.id] = event
        self._to_score.append(request)

    def _count(self, sample: Generation, reward: float | None) -> None:
        if reward is None:
            self.votes().max_samples -= 1
            return
        group = self._ballot.group(self._task.extract(sample.text), sample.text)
        weight = reward
        if self._select == "best" and group is not None:
            # So that a group weighs as much as its best sample.
            weight = max(0.0, reward - self._ballot.weight(group))
        self._ballot.count_group(group, sample.tokens, weight, reward)

    def follow_ups(self) -> list[Request]:
        """The rewards of samples that have ended."""
        waiting, self._to_score = self._to_score, []
        return waiting

    def certainty(self) -> Certainty:
        """Reward certaindex: agreement times the mean reward of the leader; 0 below two answers."""
        votes = self.votes()
        return Certainty(reward_certaindex(votes) or 0.0, "reward", votes.answered)
