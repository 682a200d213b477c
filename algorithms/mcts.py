"""Monte Carlo tree search over steps: UCT with a process reward or with rollouts.

Kocsis & Szepesvari, "Bandit based Monte-Carlo Planning", 2006 (UCT); Chaslot et al., "Parallel
Monte-Carlo Tree Search", 2008 (virtual loss); for reasoning Qi et al., "Mutual Reasoning Makes Smaller
LLMs Stronger Problem-Solvers" (rStar), 2024, and Zhang et al., "LLaMA-Berry", 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf, log, sqrt
from typing import NamedTuple

from algorithms.program import Generation, Sampling
from algorithms.task import Task
from algorithms.tree import Node, Steps, TreeSearch


class Tally(NamedTuple):
    """What simulations through a node have brought: how many, and the sum of their rewards."""

    visits: int = 0
    total: float = 0.0


class Mcts(TreeSearch):
    """Simulations from the root: go down by UCT, write on from there, score, back up.

    A node may be gone on from until it has `children` children; then its best child by UCT is gone
    down to. With rollouts a simulation writes its answer to the end and adds each of its
    steps to the tree, all with the reward of the end; else it adds one step with the step's own
    reward. A simulation that runs counts as a visit with reward 0 (virtual loss), so that simulations
    at once spread over the tree.

    Args:
        leaves: simulations, and so finished answers, with rollouts; finished answers without.
        children: most children of a node.
        exploration: c of UCT.
        rollouts: write on to the end.
        task, steps: see `TreeSearch`.
    """

    def __init__(
        self,
        task: Task,
        *,
        leaves: int,
        children: int,
        steps: Steps,
        exploration: float = 0.5,
        rollouts: bool = True,
    ) -> None:
        if children < 1 or not exploration >= 0:
            raise ValueError(
                "children must be 1 or more and exploration 0 or more, not "
                f"{children} and {exploration}"
            )
        super().__init__(task, leaves=leaves, steps=steps)
        self._children = children
        self._exploration = exploration
        self._rollouts = rollouts
        self.root = Node()
        self._tallies: dict[Node, Tally] = {self.root: Tally()}

    @property
    def simulations(self) -> int:
        """Simulations of the full budget."""
        return self._leaves if self._rollouts else self._leaves * self._steps.depth

    def _step_sampling(self) -> Sampling:
        if self._rollouts:
            return self._task.sampling
        return super()._step_sampling()

    def _has_ended(self, event: Generation) -> bool:
        return event.finish_reason == "stop" if self._rollouts else super()._has_ended(event)

    def remaining(self) -> int:
        """Simulations not yet begun; 0 when there are answers enough or nothing is left to try."""
        if self.votes().n >= self._leaves or self._select(self.root) is None:
            return 0 if not self._busy else 1
        return self.simulations - self._proposed

    def _next(self) -> Node | None:
        if self._proposed >= self.simulations or self.votes().n >= self._leaves:
            return None
        node = self._select(self.root)
        if node is not None:
            for above in _path(node):
                visits, total = self._tallies[above]
                self._tallies[above] = Tally(visits + 1, total)  # the virtual loss
        return node

    def _select(self, node: Node) -> Node | None:
        """Where the next simulation writes on below a node; None where all has ended."""
        if node.ended or node.depth >= self._steps.depth:
            return None
        if len(node.children) + node.running < self._children:
            return node
        ranked = sorted(node.children, key=lambda child: self._uct(node, child), reverse=True)
        below = (self._select(child) for child in ranked)
        return next((found for found in below if found is not None), None)

    def _uct(self, parent: Node, child: Node) -> float:
        visits, total = self._tallies[child]
        if not visits:
            return inf
        above = max(self._tallies[parent].visits, 1)
        return total / visits + self._exploration * sqrt(log(above) / visits)

    def _grown(self, node: Node) -> None:
        assert node.parent is not None, "the root is not scored"
        assert node.reward is not None, "it was scored just now"
        for above in _path(node.parent):
            visits, total = self._tallies[above]
            self._tallies[above] = Tally(visits, total + node.reward)
        for part in self._unfold(node) if self._rollouts else [node]:
            self._tallies[part] = Tally(1, node.reward)

    def _unfold(self, leaf: Node) -> list[Node]:
        """Put a rollout's steps between its first node and its end, one node each."""
        parent = leaf.parent
        assert parent is not None, "a rollout goes on from somewhere"
        parent.children.remove(leaf)
        made: list[Node] = []
        for text in _steps_of(leaf.text, len(parent.text), self._steps.delimiter):
            last = text == leaf.text
            node = leaf if last else replace(leaf, text=text, ended=False, children=[], running=0)
            node.parent, node.depth = parent, parent.depth + 1
            parent.children.append(node)
            parent = node
            made.append(node)
        # An answer that did not end is too long, and is not gone on with.
        leaf.ended = True
        return made

    def _withered(self, parent: Node) -> None:
        for above in _path(parent):
            visits, total = self._tallies[above]
            self._tallies[above] = Tally(visits - 1, total)


def _path(node: Node | None) -> Iterator[Node]:
    """A node and all above it."""
    while node is not None:
        yield node
        node = node.parent


def _steps_of(text: str, start: int, delimiter: str) -> Iterator[str]:
    """The beginnings of a text that end with its steps after `start`; the last is all of it."""
    place = start
    while (found := text.find(delimiter, place)) >= 0 and found + len(delimiter) < len(text):
        place = found + len(delimiter)
        yield text[:place]
    yield text
