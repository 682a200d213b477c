"""Tree searches that go down level by level: beam search, DVTS, REBASE."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from algorithms.task import Task
from algorithms.tree import Node, Steps, TreeSearch


class LevelSearch(TreeSearch):
    """A tree search that goes down level by level, all of one level before the next.

    What is expanded depends on all rewards of a level and not on which came first, so the same
    steps give the same tree whatever their order.
    """

    def __init__(
        self,
        task: Task,
        *,
        leaves: int,
        steps: Steps,
    ) -> None:
        super().__init__(task, leaves=leaves, steps=steps)
        self._level: list[Node] = []  # new nodes that have not ended
        self._depth = 0
        self._plan: list[Node] = self._first()

    def _first(self) -> list[Node]:
        """What the search begins with: the root, once for each answer of the budget."""
        return [self.root] * self._leaves

    @abstractmethod
    def _allot(self, level: list[Node], slots: int) -> Iterable[tuple[Node, int]]:
        """How many children each node of a level gets, `slots` in all at the most."""

    def _next(self) -> Node | None:
        if not self._plan and not self._busy:
            self._descend()
        return self._plan.pop(0) if self._plan else None

    def _descend(self) -> None:
        level, self._level = self._level, []
        slots = self._leaves - self.votes().n
        self._depth += 1
        if not level or slots <= 0 or self._depth >= self._steps.depth:
            return
        # In the order of their steps, and not in that of their rewards' coming.
        level.sort(key=lambda node: (node.branch, node.text))
        self._plan = [node for node, count in self._allot(level, slots) for _ in range(count)]

    def _grown(self, node: Node) -> None:
        if not node.ended:
            self._level.append(node)

    def _withered(self, parent: Node) -> None:
        """Nothing: the level is the poorer by one."""

    def remaining(self) -> int:
        """Steps at the most; 0 when no level follows."""
        slots = self._leaves - self.votes().n
        if self._plan or self._busy or (self._level and slots > 0):
            return len(self._plan) + max(0, slots) * max(0, self._steps.depth - self._depth)
        return 0
