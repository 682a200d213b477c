"""Tree searches that go down level by level: beam search, DVTS, REBASE."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from algorithms.program import Request
from algorithms.task import Task
from algorithms.tree import Node, Steps, TreeSearch


@dataclass(slots=True)
class _Tree:
    """One of the trees of a search.

    Attributes:
        number: of the tree, which its nodes carry.
        slots: leaves that it may still bring.
        plan: nodes to go on from, each once for a child.
        level: new nodes that have not ended.
        depth: levels above the one that it is at.
    """

    number: int
    slots: int
    plan: list[Node]
    level: list[Node] = field(default_factory=list)
    depth: int = 0


class LevelSearch(TreeSearch):
    """A tree search that goes down level by level, all of one level of a tree before its next.

    All leaves of a tree end in about the same level, so when the first of them agree there is next to
    nothing left of it to save. That is why the budget may be shared out among several trees, each a
    search of its own from the question on, whose leaves vote together: between two trees it can be
    stopped. As many of them stand side by side as the first call of `propose` has room for.

    What is expanded depends on all rewards of a level and not on which came first, so the same
    steps give the same trees whatever their order.

    Args:
        width: leaves of one tree; the last one has what is left.
        task, leaves, steps: see `TreeSearch`.
    """

    def __init__(
        self,
        task: Task,
        *,
        leaves: int,
        width: int,
        steps: Steps,
    ) -> None:
        super().__init__(task, leaves=leaves, steps=steps)
        if not 1 <= width <= leaves:
            raise ValueError(f"width must be between 1 and leaves = {leaves}, not {width}")
        self._width = width
        self._abreast: int | None = None
        self._begun = 0  # trees
        self._unplanted = leaves  # leaves of trees that have not begun
        self._trees: list[_Tree] = []  # that are not over

    @abstractmethod
    def _allot(self, level: list[Node], slots: int) -> Iterable[tuple[Node, int]]:
        """How many children each node of a level gets, `slots` in all at the most."""

    def propose(self, n: int) -> list[Request]:
        """The next `n` steps."""
        if self._abreast is None:
            self._abreast = max(1, n // self._width)
        return super().propose(n)

    def _next(self) -> Node | None:
        for tree in list(self._trees):
            if not tree.plan and not self._is_busy(tree):
                self._descend(tree)
                if not tree.plan:
                    self._trees.remove(tree)
            if tree.plan:
                return tree.plan.pop(0)
        if self._unplanted and len(self._trees) < (self._abreast or 1):
            return self._plant().plan.pop(0)
        return None

    def _is_busy(self, tree: _Tree) -> bool:
        nodes = (*self._growing.values(), *self._scoring.values())
        return any(node.tree == tree.number for node in nodes)

    def _plant(self) -> _Tree:
        """Begin the next tree: with the question, once for each of its leaves."""
        slots = min(self._width, self._unplanted)
        self._unplanted -= slots
        tree = _Tree(self._begun, slots, [Node(tree=self._begun)] * slots)
        self._begun += 1
        self._trees.append(tree)
        return tree

    def _descend(self, tree: _Tree) -> None:
        level, tree.level = tree.level, []
        tree.depth += 1
        if not level or tree.slots <= 0 or tree.depth >= self._steps.depth:
            return
        # In the order of their steps, and not in that of their rewards' coming.
        level.sort(key=lambda node: node.text)
        tree.plan = [node for node, count in self._allot(level, tree.slots) for _ in range(count)]

    def _grown(self, node: Node) -> None:
        tree = next(tree for tree in self._trees if tree.number == node.tree)
        if node.ended:
            tree.slots -= 1
        else:
            tree.level.append(node)

    def _withered(self, parent: Node) -> None:
        """Nothing: the level is the poorer by one."""

    def remaining(self) -> int:
        """Steps at the most; 0 when no level and no tree follows."""
        ahead = self._unplanted * self._steps.depth
        for tree in self._trees:
            if tree.plan or tree.level or self._is_busy(tree):
                levels = max(0, self._steps.depth - 1 - tree.depth)
                ahead += len(tree.plan) + max(0, tree.slots) * levels
        return ahead
