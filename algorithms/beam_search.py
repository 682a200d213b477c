"""Beam search over steps under a process reward, and diverse verifier tree search (DVTS).

Snell et al., "Scaling LLM Test-Time Compute Optimally", 2024 (beam search against a verifier); Beeching
et al., "Scaling test-time compute with open models", 2024 (DVTS: independent trees, so that one
early favourite does not crowd all others out).
"""

from __future__ import annotations

from collections.abc import Iterable

from algorithms.level_search import LevelSearch
from algorithms.task import Task
from algorithms.tree import Node, Steps


class BeamSearch(LevelSearch):
    """At each level the best nodes go on, each with `children` steps.

    `width` chains run at once: `width / children` nodes are kept. A chain that has ended leaves
    and makes the beam narrower. DVTS is a width of `children`: trees that begin apart, of each of which
    the best node alone goes on.

    Args:
        children: steps tried from each kept node.
        task, leaves, width, steps: see `LevelSearch`.
    """

    def __init__(
        self,
        task: Task,
        *,
        leaves: int,
        width: int,
        children: int,
        steps: Steps,
    ) -> None:
        if not 1 <= children <= width:
            raise ValueError(f"children must be between 1 and width = {width}, not {children}")
        self._children = children
        super().__init__(task, leaves=leaves, width=width, steps=steps)

    def _allot(self, level: list[Node], slots: int) -> Iterable[tuple[Node, int]]:
        best = sorted(level, key=_reward, reverse=True)
        kept = best[: max(1, slots // self._children)]
        return [(node, min(self._children, slots)) for node in kept]


def _reward(node: Node) -> float:
    assert node.reward is not None, "a level is whole when all of it is scored"
    return node.reward
