"""What a simulated replica is asked to do, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

from dynasor.engines.kv_blocks import Holding
from dynasor.scheduling.gang import Hints


class State(Enum):
    """Where a job is."""

    WAITING = auto()
    APART = auto()
    """In the batch, and lacks more than its next token, or missed a step."""
    DECODING = auto()
    """In step with the others that decode, see `Lockstep`."""
    CUT = auto()
    """Leaves the batch at the end of the step under way."""
    ENDED = auto()


class Job:
    """A request whose output is known beforehand.

    Args:
        name: unique.
        gang: id of its gang.
        prefix: name of its prompt; jobs with the same one share its KV blocks.
        prompt: tokens of the prompt, 1 or more.
        output: tokens that it will generate, 1 or more.
        report_every: output tokens between two reports, or None.

    Attributes:
        state: where it is.
        generated: output tokens so far; while it decodes, as of when it began to.
        computed: tokens in the KV cache; while it decodes, as of when it began to.
        cached: tokens of the prompt that were in the cache when it was first admitted, or None.
        first_token: when its first token was there, or None.
        held: its KV blocks while it runs.
        offset, stop: places in `Lockstep`.
    """

    __slots__ = (
        "cached", "computed", "first_token", "gang", "generated", "held", "name", "offset",
        "output", "prefix", "prompt", "report_every", "state", "stop",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        gang: str,
        prefix: str,
        prompt: int,
        output: int,
        report_every: int | None = None,
    ) -> None:
        if prompt < 1 or output < 1:
            raise ValueError(f"prompt and output must be 1 or more tokens, not {prompt}, {output}")
        self.name = name
        self.gang = gang
        self.prefix = prefix
        self.prompt = prompt
        self.output = output
        self.report_every = report_every
        self.state = State.WAITING
        self.generated = 0
        self.computed = 0
        self.cached: int | None = None
        self.first_token: float | None = None
        self.held: Holding | None = None
        self.offset = 0
        self.stop = 0


class Report(NamedTuple):
    """A job that came to its end, or has news: its output tokens so far."""

    job: Job
    tokens: int
    finished: bool


class Queue(Protocol):
    """Who is admitted next: a `GangQueue` or an `ArrivalQueue` of jobs."""

    pace: float
    typical: float
    """Output tokens that a request typically takes."""

    def add(self, item: Job, gang: str | None, name: str, hints: Hints | None = None) -> None:
        """A request has come."""
        ...

    def give_back(self, item: Job) -> None:
        """It was preempted."""
        ...

    def end(self, item: Job, served: int = 0, finished: bool = False) -> None:
        """It has ended."""
        ...

    def hint(self, gang: str, hints: Hints) -> None:
        """News of a gang."""
        ...

    def peek(self) -> Job | None:
        """The request to admit next."""
        ...

    def take(self) -> Job:
        """Admit it."""
        ...

    def standing(self, item: Job) -> tuple[float, ...]:
        """Sort key of a running request; the last is preempted first."""
        ...

    def reconsider(self) -> None:
        """Time has passed."""
        ...

    def __len__(self) -> int: ...


@dataclass(slots=True)
class Counters:
    """What a replica did.

    Attributes:
        steps: engine steps.
        seconds: in which it computed.
        preemptions: requests that lost their KV blocks.
        recomputed_tokens: tokens in the blocks that they lost.
        kv_peak: largest share of the KV blocks in use.
        kv_sum: share of the KV blocks in use, summed over steps; linear within a run of steps.
        running_sum: requests in the batch, summed over steps.
    """

    steps: int = 0
    seconds: float = 0.0
    preemptions: int = 0
    recomputed_tokens: int = 0
    kv_peak: float = 0.0
    kv_sum: float = 0.0
    running_sum: int = 0
