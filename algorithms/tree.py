"""What tree searches over reasoning steps share: nodes, requests for steps and rewards, leaves.

A step is what the model writes up to a stated delimiter. A node is the text from the first step to
its own; it is scored by a process reward model and is a leaf where the model has ended its answer.
Leaves are the votes, weighed by their reward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

from algorithms.ballot import Ballot
from algorithms.program import (
    Answer,
    Certainty,
    Event,
    Generation,
    Request,
    Sampling,
)
from algorithms.task import Task
from certaindex.reward import reward_certaindex
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class Steps:
    """How an answer falls into steps.

    Attributes:
        delimiter: the text that ends a step.
        tokens: longest step; a longer one is cut and its rest is a step of its own.
        depth: most steps of an answer; what has not ended by then is given up.
    """

    delimiter: str = "\n\n"
    tokens: int = 256
    depth: int = 40

    def __post_init__(self) -> None:
        if not self.delimiter:
            raise ValueError("delimiter must not be empty")
        for name in ("tokens", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")


@dataclass(slots=True, eq=False)
class Node:
    """A beginning of an answer.

    Attributes:
        text: from the first step to this one, delimiters included.
        depth: its steps.
        tokens: output tokens on the way here.
        parent: the node before the last step, None for the root.
        reward: 0 to 1; None until it is scored.
        ended: whether the model has ended its answer here.
        tree: number of the tree that it belongs to, for searches that have several.
        children: nodes that go on from here.
        running: steps from here that run or wait for their reward.
    """

    text: str = ""
    depth: int = 0
    tokens: int = 0
    parent: Node | None = None
    reward: float | None = None
    ended: bool = False
    tree: int = 0
    children: list[Node] = field(default_factory=list)
    running: int = 0


class TreeSearch(ABC):
    """A search whose children say what to expand next and what a new node changes.

    A step that the engine failed, or whose reward failed, is given up; the search goes on.

    Args:
        task: what is asked.
        leaves: finished answers that the full budget allows.
        steps: how an answer falls into steps.
    """

    def __init__(
        self,
        task: Task,
        *,
        leaves: int,
        steps: Steps,
    ) -> None:
        if leaves < 1:
            raise ValueError(f"leaves must be 1 or more, not {leaves}")
        self._task = task
        self._leaves = leaves
        self._steps = steps
        self._ballot = Ballot(leaves, task.groups)
        self._proposed = 0
        self._scores = 0
        self._growing: dict[str, Node] = {}  # running step -> the node that it goes on from
        self._scoring: dict[str, Node] = {}  # running score -> the new node
        self._to_score: list[Request] = []

    @property
    def id(self) -> str:
        """Name of the query."""
        return self._task.id

    @abstractmethod
    def _next(self) -> Node | None:
        """The node to go on from now, taken off the list; None to wait or at the end."""

    @abstractmethod
    def _grown(self, node: Node) -> None:
        """A new node was scored; `node.parent` holds it already."""

    @abstractmethod
    def _withered(self, parent: Node) -> None:
        """A step from this node came to nothing."""

    @abstractmethod
    def remaining(self) -> int:
        """Steps yet to propose at the most; 0 where the search is over."""

    @property
    def _busy(self) -> int:
        return len(self._growing) + len(self._scoring)

    def propose(self, n: int) -> list[Request]:
        """The next `n` steps."""
        requests: list[Request] = []
        while len(requests) < n and (node := self._next()) is not None:
            requests.append(self._step(node))
        self.votes().in_flight = self._busy
        return requests

    def _step(self, node: Node) -> Request:
        sampling = self._step_sampling()
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + self._proposed)
        request = Request(
            id=f"{self._task.id}#step-{self._proposed}",
            program=self._task.id,
            prompt=self._task.prompt,
            sampling=sampling,
            index=self._proposed,
            kind="step",
            prefix=node.text,
        )
        self._proposed += 1
        self._growing[request.id] = node
        node.running += 1
        return request

    def _step_sampling(self) -> Sampling:
        limit = min(self._steps.tokens, self._task.sampling.max_tokens)
        stop = (self._steps.delimiter,)
        return replace(self._task.sampling, max_tokens=limit, stop=stop, keep_stop=True)

    def receive(self, event: Event) -> None:
        """Have a new step scored, or take a scored one into the tree."""
        if not isinstance(event, Generation):
            return
        if event.request in self._scoring:
            self._score_ended(event)
        else:
            self._step_ended(event)
        self.votes().in_flight = self._busy

    def _step_ended(self, event: Generation) -> None:
        parent = self._growing.pop(event.request)
        if event.finish_reason in ("aborted", "error"):
            parent.running -= 1
            self._withered(parent)
            return
        node = Node(
            text=parent.text + event.text,
            depth=parent.depth + 1,
            tokens=parent.tokens + event.tokens,
            parent=parent,
            tree=parent.tree,
            ended=self._has_ended(event),
        )
        request = Request(
            id=event.request.replace("#step-", "#score-"),
            program=self._task.id,
            prompt=self._task.prompt,
            sampling=Sampling(max_tokens=1),
            index=self._scores,
            kind="score",
            prefix=node.text,
        )
        self._scores += 1
        self._scoring[request.id] = node
        self._to_score.append(request)

    def _has_ended(self, event: Generation) -> bool:
        """Whether the model has ended its answer with this step."""
        return event.finish_reason == "stop" and not event.text.endswith(self._steps.delimiter)

    def _score_ended(self, event: Generation) -> None:
        node = self._scoring.pop(event.request)
        parent = node.parent
        assert parent is not None, "only steps are scored"
        parent.running -= 1
        if event.reward is None:
            self._withered(parent)
            return
        node.reward = event.reward
        parent.children.append(node)
        if node.ended:
            answer = self._task.extract(node.text)
            self._ballot.count(answer, node.text, node.tokens, event.reward, event.reward)
        self._grown(node)

    def follow_ups(self) -> list[Request]:
        """The rewards of new steps."""
        waiting, self._to_score = self._to_score, []
        return waiting

    def conclude(self) -> list[Request]:
        """Nothing: the leaves are the answer."""
        return []

    def cancelled(self) -> list[str]:
        """Nothing."""
        return []

    def votes(self) -> Votes:
        """The finished leaves."""
        return self._ballot.votes

    def certainty(self) -> Certainty:
        """Reward certaindex of the leaves; 0 below two answers."""
        votes = self.votes()
        return Certainty(reward_certaindex(votes) or 0.0, "reward", votes.answered)

    def answer(self) -> Answer:
        """The answer whose leaves have the most reward together."""
        return self._ballot.answer()
