"""Open-loop traffic: when queries come, whatever the engine does, and what they ask.

Three kinds: `poisson`, gaps without memory; `gamma:CV`, bursts, with gaps of that coefficient of
variation (1 is Poisson, larger is burstier); `trace:FILE`, recorded times, stretched to the rate.
The same seed gives the same times and questions, so that all systems meet the same traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dynasor.bench.workload import Arrival
from dynasor.errors import ConfigError, DataError
from dynasor.suites import Query, Suite

CHAT = "chat"
"""SLO class of plain chats."""
LARGEST_TRACE = 64 << 20


class Traffic(Protocol):
    """A process that brings queries."""

    def gaps(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """`count` times between arrivals with a mean of 1, in no unit."""
        ...


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gaps of a gamma distribution with this coefficient of variation; 1 is a Poisson process."""

    cv: float = 1.0

    def gaps(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Gaps with shape 1 / cv^2 and mean 1."""
        return random.gamma(self.cv**-2, self.cv**2, size=count)


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The gaps of a recording, from a place that is drawn, over and over."""

    recorded: NDArray[np.float64]

    def gaps(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """The recording's gaps over their mean."""
        start = int(random.integers(len(self.recorded)))
        places = (start + np.arange(count)) % len(self.recorded)
        gaps: NDArray[np.float64] = self.recorded[places] / self.recorded.mean()
        return gaps


def parse_traffic(text: str) -> Traffic:
    """`poisson`, `gamma:CV` or `trace:FILE`, where the file has one time in seconds a line.

    Raises:
        ConfigError: if it is none of these.
        DataError: if the file cannot be read or holds other things than ascending times.
    """
    kind, _, value = text.partition(":")
    if text == "poisson":
        return Gamma()
    if kind == "gamma":
        cv = _number(value)
        if cv is None or not 0 < cv <= 100:
            raise ConfigError(f"--traffic {text}: gamma needs a coefficient of variation, gamma:2")
        return Gamma(cv)
    if kind == "trace" and value:
        return Recorded(_read_gaps(Path(value)))
    raise ConfigError(f"--traffic {text}: there are poisson, gamma:CV and trace:FILE")


def arrival_times(
    traffic: Traffic, rate: float, duration: float, seed: Sequence[int]
) -> list[float]:
    """Times in [0, duration), seconds, at `rate` arrivals a second in the mean."""
    random = np.random.default_rng(seed)
    gaps = np.empty(0)
    while gaps.sum() <= duration * rate:
        more = traffic.gaps(int(duration * rate) + 16, random)
        gaps = np.concatenate([gaps, more])
    times = gaps.cumsum() / rate
    kept: list[float] = times[times < duration].tolist()
    return kept


def plan_arrivals(
    suite: Suite,
    traffic: Traffic,
    *,
    rate: float,
    duration: float,
    chats: float = 0.0,
    seed: Sequence[int] = (0,),
) -> list[Arrival]:
    """What comes when, without deadlines.

    Questions come in a random order, each once before any comes again.

    Args:
        suite: the questions, of queries and chats alike.
        traffic: the process of arrivals.
        rate: arrivals a second.
        duration: seconds.
        chats: share of plain chats.
        seed: of times, kinds and order.
    """
    random = np.random.default_rng((*seed, 1))
    arrivals: list[Arrival] = []
    order: list[int] = []
    for number, time in enumerate(arrival_times(traffic, rate, duration, seed)):
        if not order:
            order = random.permutation(len(suite.queries)).tolist()
        query = suite.queries[order.pop()]
        chat = bool(random.random() < chats)
        arrivals.append(
            Arrival(
                id=f"{number}-{query.id}",
                time=time,
                question=query.id,
                kind="chat" if chat else "query",
                group=CHAT if chat else group_of(query),
                deadline=None,
            )
        )
    return arrivals


def group_of(query: Query) -> str:
    """SLO class of a query: its `slo_class`, or else its level, where the suite has these."""
    if "slo_class" in query.meta:
        return str(query.meta["slo_class"])
    return f"level {query.meta['level']}" if "level" in query.meta else "query"


def _read_gaps(path: Path) -> NDArray[np.float64]:
    try:
        if path.stat().st_size > LARGEST_TRACE:
            raise DataError(f"{path}: larger than {LARGEST_TRACE} bytes; cut it")
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text; give one time in seconds a line") from None
    times: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        time = _number(line)
        if time is None or (times and time < times[-1]):
            raise DataError(
                f"{path}, line {number}: {line.strip()[:40]!r} is not a time in seconds at or after "
                "the one before; mend it"
            )
        times.append(time)
    if len(times) < 2 or times[-1] == times[0]:
        raise DataError(f"{path}: needs two different times or more")
    return np.diff(np.array(times))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
