"""The figures of an online benchmark: what tables, pictures and `--json` show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dynasor.intervals import Interval


@dataclass(frozen=True, slots=True)
class RateRow:
    """A system at one rate, its repeats together; latencies in seconds.

    Attributes:
        rate: arrivals a second.
        attainment: share of the answers in time.
        attainment_interval: of that.
        mean, p50, p90, p99, longest: latencies from the time at which a query was due.
        queries: that count.
        unfinished: of these, those without an answer when the run was given up.
        cut_short: of these, those that answered when due with the best so far: not in time.
        accuracy_change: as for the system, of the runs at this rate alone.
        accuracy_change_interval: of that.
        queries_per_second: answered, over the runs.
        tokens_per_second: output tokens of the answered, over the runs.
        preemptions: requests that lost their memory, a run.
        recomputed_tokens: tokens that were computed again for it, a run.
        kv_peak, kv_mean: shares of the KV memory; None where the engine does not count.
        send_lateness_p99: of the load generator, seconds, the worst run.
        generator_cpu: share of a core that the load generator took, the worst run.
    """

    rate: float
    attainment: float | None
    attainment_interval: Interval | None
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    longest: float | None
    queries: int
    unfinished: int
    cut_short: int
    accuracy_change: float | None
    accuracy_change_interval: Interval | None
    queries_per_second: float
    tokens_per_second: float
    preemptions: float | None
    recomputed_tokens: float | None
    kv_peak: float | None
    kv_mean: float | None
    send_lateness_p99: float | None
    generator_cpu: float | None


@dataclass(frozen=True, slots=True)
class SystemRow:
    """A system over all its runs.

    Attributes:
        name: of the system.
        meaning: one line.
        accuracy: share of right answers, a question counting once; None without right answers.
            Where the system knows when answers are due, of the rates and scales that it held (all,
            where it held none): elsewhere it answers before it is ready.
        accuracy_change: that less vanilla's on the questions that both answered, points.
        accuracy_change_interval: of that, over questions.
        tokens: output tokens a query, those of cut samples included.
        rates: its rows, ascending.
        max_rate_at_90: highest rate that holds the target, between measured points.
        max_rate_is_bound: no measured rate failed it.
        max_rate_interval: of that.
        tightest_scale_at_90: tightest SLO scale that holds the target at `scale_rate`.
        scales: SLO scale -> attainment at `scale_rate`; of runs that were told that scale where
            the system knows deadlines, else of all scales from the same runs.
    """

    name: str
    meaning: str
    accuracy: float | None
    accuracy_change: float | None
    accuracy_change_interval: Interval | None
    tokens: float | None
    rates: tuple[RateRow, ...]
    max_rate_at_90: float | None
    max_rate_is_bound: bool
    max_rate_interval: Interval | None
    tightest_scale_at_90: float | None
    scales: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class OnlineReport:
    """All systems, and ours against vanilla.

    Attributes:
        systems: in the order of the ablation.
        rate_ratio: ours' highest rate over vanilla's; None where either has none.
        rate_ratio_interval: of that, over repeats and queries.
        slo_ratio: vanilla's tightest scale over ours; None where either has none.
        slo_ratio_interval: of that, over repeats and queries.
        scale_rate: rate at which tightest scales are compared, arrivals a second.
        slo_scale: SLO scale at which rates are compared.
        unloaded: class -> latency on the idle engine, seconds.
        capacity: arrivals a second that vanilla can bear; None where rates were given.
        failed: queries that the engine failed.
    """

    systems: tuple[SystemRow, ...]
    rate_ratio: float | None
    rate_ratio_interval: Interval | None
    slo_ratio: float | None
    slo_ratio_interval: Interval | None
    scale_rate: float
    slo_scale: float
    unloaded: Mapping[str, float]
    capacity: float | None
    failed: int

    def as_json(self) -> dict[str, Any]:
        """For `--json` and the file."""
        return asdict(self)
