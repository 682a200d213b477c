"""Beam search over steps under a process reward, and diverse verifier tree search (DVTS).

Snell et al., "Scaling LLM Test-Time Compute Optimally", 2024 (beam search against a verifier); Beeching
et al., "Scaling test-time compute with open models", 2024 (DVTS: independent trees, so that one
early favourite does not crowd all others out).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from algorithms.level_search import LevelSearch
from algorithms.task import Task
from algorithms.tree import Node, Steps


class BeamSearch(LevelSearch):
    """At each level the best nodes go on, each with `children` steps.

    `leaves` chains run at once: `leaves / children` nodes are kept. A chain that has ended leaves
    and makes the beam narrower.

    Args:
        children: steps tried from each kept node.
        diverse: keep the best node of each of `leaves / children` trees that begin apart (DVTS), in
            place of the best nodes of all.
        task, leaves, steps: see `TreeSearch`.
    """

    def __init__(
        self,
        task: Task,
        *,
        leaves: int,
        children: int,
        steps: Steps,
        diverse: bool = False,
    ) -> None:
        if not 1 <= children <= leaves:
            raise ValueError(f"children must be between 1 and leaves = {leaves}, not {children}")
        self._children = children
        self._diverse = diverse
        super().__init__(task, leaves=leaves, steps=steps)

    def _first(self) -> list[Node]:
        """The root; DVTS has one for each of its trees."""
        if not self._diverse:
            return super()._first()
        roots = [Node(branch=tree) for tree in range(self._leaves // self._children)]
        return [root for root in roots for _ in range(self._children)]

    def _allot(self, level: list[Node], slots: int) -> Iterable[tuple[Node, int]]:
        if self._diverse:
            trees = groupby(level, key=lambda node: node.branch)
            best = [max(nodes, key=_reward) for _, nodes in trees]
        else:
            best = sorted(level, key=_reward, reverse=True)
        kept = best[: max(1, slots // self._children)]
        return [(node, min(self._children, slots)) for node in kept]


def _reward(node: Node) -> float:
    assert node.reward is not None, "a level is whole when all of it is scored"
    return node.reward
