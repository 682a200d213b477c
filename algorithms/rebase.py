"""REBASE: reward-balanced search, where good nodes get more children and none is thrown away unseen.

Wu et al., "Inference Scaling Laws: An Empirical Analysis of Compute-Optimal Inference for LLM
Problem-Solving", 2024: the budget of a level is shared out by a softmax of the rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, floor

from algorithms.level_search import LevelSearch
from algorithms.task import Task
from algorithms.tree import Node, Steps


class Rebase(LevelSearch):
    """`width` chains at once; at each level those not ended are shared out by reward.

    Args:
        temperature: of the softmax; near 0 the best node gets all, at a large one all get the same.
        task, leaves, width, steps: see `LevelSearch`.
    """

    def __init__(
        self,
        task: Task,
        *,
        leaves: int,
        width: int,
        steps: Steps,
        temperature: float = 0.1,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self._temperature = temperature
        super().__init__(task, leaves=leaves, width=width, steps=steps)

    def _allot(self, level: list[Node], slots: int) -> Iterable[tuple[Node, int]]:
        rewards = [node.reward or 0.0 for node in level]
        return zip(level, shares(rewards, slots, self._temperature), strict=True)


def shares(rewards: Sequence[float], slots: int, temperature: float) -> list[int]:
    """`slots` shared out in proportion to exp(reward / temperature).

    Whole numbers by largest remainder, of equals the better reward and then the first; they sum up to
    `slots`.
    """
    best = max(rewards)
    weights = [exp((reward - best) / temperature) for reward in rewards]
    exact = [slots * weight / sum(weights) for weight in weights]
    counts = [floor(share) for share in exact]
    places = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], -rewards[i], i))
    for place in places[: slots - sum(counts)]:
        counts[place] += 1
    return counts
