"""What an order by predicted length is worth: latency of a queue against FCFS and the oracle.

Requests wait for one of `slots` places and then produce one token a step, as a decoder that is bound by
memory does: a step takes the same time for one request or for a full batch. Prompts cost nothing. Who
goes next is the decision of our own scheduler's queue and policies (`dynasor.scheduling`), its
starvation guard included. A running request is not preempted. Times are in steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapreplace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dynasor.errors import DataError
from dynasor.intervals import Interval, bootstrap
from dynasor.scheduling.aging import Aging
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.policies import Fcfs, Policy, SjfRank
from dynasor.scheduling.queue import GangQueue

Floats = NDArray[np.float64]

FCFS = "fcfs"
ORACLE = "oracle"
_REQUESTS, _REPEATS = 2000, 8  # of `latency_ratios`: about a second, an interval of some percent


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests come.

    Attributes:
        load: tokens that come, as a share of those that all slots can produce; requests come one by
            one at random (Poisson). None for a burst: all are there at the start.
        slots: requests that are served at once.
        requests: in one run; over capacity, latency grows with them.
    """

    load: float | None = 0.9
    slots: int = 1
    requests: int = _REQUESTS

    def __post_init__(self) -> None:
        if self.load is not None and not 0 < self.load < float("inf"):
            raise ValueError(f"load must be above 0, not {self.load}")
        if self.slots < 1 or self.requests < 1:
            raise ValueError(
                f"slots and requests must be 1 or more, not {self.slots} and {self.requests}"
            )

    def arrivals(self, mean_tokens: float, random: np.random.Generator) -> Floats:
        """Times of the arrivals, in order, shape `(requests,)`."""
        if self.load is None:
            return np.zeros(self.requests)
        gap = mean_tokens / (self.load * self.slots)
        return random.exponential(gap, self.requests).cumsum()


class Served(NamedTuple):
    """One run of the queue; arrays of shape `(requests,)`, in order of arrival.

    Attributes:
        latency: steps from the arrival to the last token.
        wait: steps from the arrival to admission.
        place: how many requests were admitted before this one.
    """

    latency: Floats
    wait: Floats
    place: NDArray[np.int64]


def serve(
    arrivals: Floats,
    tokens: Floats,
    ranks: Floats | None = None,
    *,
    slots: int = 1,
    aging: Aging | None = None,
) -> Served:
    """Serve requests to their end.

    Args:
        arrivals: times, in order, shape `(requests,)`.
        tokens: output tokens of each.
        ranks: the smaller, the sooner it is admitted; equal ones by arrival, None for all by arrival.
        slots: requests at once.
        aging: the starvation guard, its patience in steps; None for none.
    """
    now = 0.0
    policy: Policy = Fcfs() if ranks is None else SjfRank()
    queue: GangQueue[int] = GangQueue(policy, lambda: now, aging=aging)
    hints = [None] * len(tokens) if ranks is None else [Hints(rank=rank) for rank in ranks.tolist()]
    came, lasts = arrivals.tolist(), tokens.tolist()
    free = [0.0] * slots  # a heap: when each slot is free
    admitted = np.empty(len(came))
    order: list[int] = []
    coming = 0
    while len(order) < len(came):
        # The next decision is due when a slot is free and somebody is there.
        due = max(free[0], now if queue else came[coming])
        while coming < len(came) and came[coming] <= due:
            now = came[coming]  # the queue stamps it with its clock
            queue.add(coming, None, str(coming), hints[coming])
            coming += 1
        now = due
        if aging is not None:
            queue.reconsider()
        request = queue.take()
        queue.end(request)  # what runs needs no queue
        heapreplace(free, now + lasts[request])
        admitted[request] = now
        order.append(request)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    wait = admitted - arrivals
    return Served(wait + tokens, wait, place)


def share_of_bound(served: Served, arrivals: Floats, aging: Aging) -> float:
    """How much of the bound on waiting was used at most; above 1 it would be broken.

    The bound (see `dynasor.scheduling.aging`) of a request, of which each is a gang of its own here:
    from the moment at which it is aged it is admitted with the `turns * (A + 1)`-th admission at the
    latest, A being the older requests that are admitted from then on.

    Returns:
        the largest share over all requests that waited until they were aged; 0 if none did.
    """
    admitted, aged = arrivals + served.wait, arrivals + aging.patience
    late = np.flatnonzero(admitted > aged)
    if not len(late):
        return 0.0
    before = np.searchsorted(np.sort(admitted), aged[late])
    turn = served.place[late] + 1 - before
    older = np.array([(admitted[:each] >= aged[each]).sum() for each in late])
    return float((turn / (aging.turns * (older + 1))).max())


class OrderResult(NamedTuple):
    """What an order gave; arrays of shape `(repeats,)`, in steps.

    Attributes:
        mean: latency, mean over the requests of a run.
        p99: latency that 99% of them stay under.
        longest_wait: for admission.
        of_bound: see `share_of_bound`; 0 without a guard.
    """

    mean: Floats
    p99: Floats
    longest_wait: Floats
    of_bound: Floats


@dataclass(frozen=True, slots=True)
class Comparison:
    """Orders on the same runs.

    Attributes:
        results: name of an order -> what it gave, `fcfs` and `oracle` among them.
    """

    results: Mapping[str, OrderResult]

    def speedup(self, name: str, against: str = FCFS) -> tuple[float, Interval]:
        """Mean latency of `against` / that of the order, with its interval over the repeats."""
        return _ratio(self.results[against].mean, self.results[name].mean)

    def share_of_gain(self, name: str) -> tuple[float, Interval]:
        """(FCFS - the order) / (FCFS - oracle) in mean latency; NaN where the oracle gains nothing."""
        fcfs = self.results[FCFS].mean
        gain = fcfs - self.results[ORACLE].mean
        if not gain.any():
            return float("nan"), (float("nan"), float("nan"))
        return _ratio(fcfs - self.results[name].mean, gain)


def compare_orders(
    scores: Mapping[str, ArrayLike],
    tokens: ArrayLike,
    traffic: Traffic,
    *,
    aging: Aging | None = None,
    repeats: int = 20,
    seed: int = 0,
) -> Comparison:
    """Serve the same requests first come first served, by the oracle, and by each score.

    Each repeat draws its requests anew, with replacement, and their arrivals.

    Args:
        scores: name -> predicted scores, the longer the higher, shape `(examples,)`.
        tokens: true output tokens, shape `(examples,)`.
        traffic: how requests come.
        aging: starvation guard of all orders but FCFS, which needs none.
        repeats: runs.
        seed: of the draws.

    Raises:
        DataError: if scores are not finite or not one a request, or tokens not above 0.
    """
    lengths = _finite("tokens", tokens)
    if len(lengths) == 0 or lengths.min() <= 0:
        raise DataError("tokens: a queue needs requests, each of more than 0 output tokens")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, not {repeats}")
    orders = {ORACLE: lengths} | {name: _finite(name, each) for name, each in scores.items()}
    for name, each in orders.items():
        if len(each) != len(lengths):
            raise DataError(f"{name}: {len(each)} scores for {len(lengths)} requests")
    rows: dict[str, list[tuple[float, ...]]] = {FCFS: [], **{name: [] for name in orders}}
    for repeat in range(repeats):
        random = np.random.default_rng((seed, repeat))
        drawn = random.integers(len(lengths), size=traffic.requests)
        long, arrivals = lengths[drawn], traffic.arrivals(float(lengths.mean()), random)
        rows[FCFS].append(_summary(serve(arrivals, long, slots=traffic.slots), arrivals, None))
        for name, each in orders.items():
            served = serve(arrivals, long, each[drawn], slots=traffic.slots, aging=aging)
            rows[name].append(_summary(served, arrivals, aging))
    return Comparison({name: OrderResult(*np.array(each).T) for name, each in rows.items()})


def latency_ratios(
    scores: ArrayLike, tokens: ArrayLike, *, load: float = 0.9, seed: int = 0
) -> tuple[float, float]:
    """How good an order is in the queue of one server with random arrivals.

    Args:
        scores: predicted, the longer the higher, shape `(examples,)`.
        tokens: true output tokens, shape `(examples,)`.
        load: see `Traffic`.
        seed: of requests and arrivals.

    Returns:
        mean latency of FCFS / of the order (above 1 is a gain), and of the order / of the oracle
        (1 is as good as knowing the lengths).

    Raises:
        DataError: see `compare_orders`.
    """
    found = compare_orders(
        {"predicted": scores}, tokens, Traffic(load), repeats=_REPEATS, seed=seed
    )
    return found.speedup("predicted")[0], found.speedup(ORACLE, "predicted")[0]


def _ratio(values: Floats, over: Floats) -> tuple[float, Interval]:
    return float(values.mean() / over.mean()), bootstrap(values, over)


def _summary(served: Served, arrivals: Floats, aging: Aging | None) -> tuple[float, ...]:
    """The fields of an `OrderResult`, of one run."""
    latency = served.latency
    used = 0.0 if aging is None else share_of_bound(served, arrivals, aging)
    return float(latency.mean()), float(np.quantile(latency, 0.99)), float(served.wait.max()), used


def _finite(name: str, values: ArrayLike) -> Floats:
    """A vector of finite numbers."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1:
        raise DataError(f"{name}: one number a request is needed, not an array of {found.shape}")
    if len(odd := np.flatnonzero(~np.isfinite(found))):
        raise DataError(
            f"{name}: number {odd[0]} of {len(found)} is {found[odd[0]]}, and {len(odd)} in all are "
            "not finite; mend the ranker that gave them"
        )
    return found
