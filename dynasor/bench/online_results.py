"""The figures of an online benchmark, from what its folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dynasor.bench.online_folder import OnlineFolder, PointResult
from dynasor.bench.online_plan import Ladder, live_scales, shares
from dynasor.bench.online_ratio import rate_ratio_interval, scale_ratio_interval
from dynasor.bench.online_report import OnlineReport, RateRow, SystemRow
from dynasor.bench.slo import (
    CUT_SHORT,
    TARGET,
    Crossing,
    attainment,
    highest_rate,
    latencies_of,
    quantile,
    rate_interval,
    share_interval,
    slowdown,
    tightest_scale,
)
from dynasor.bench.systems import OURS, VANILLA, OnlineSystem
from dynasor.bench.workload import Completion
from dynasor.intervals import Interval, bootstrap


def report_of(
    systems: Sequence[OnlineSystem], folder: OnlineFolder, ladder: Ladder
) -> OnlineReport:
    """The figures of the systems in the folder."""
    reference = folder.reference
    assert reference is not None, "the benchmark has run"
    graded = {
        system.name: _by_question(runs_held(_of(folder, system.name), reference.unloaded))
        if system.when_due
        else _by_question(_of(folder, system.name))
        for system in systems
    }
    rows = {
        system.name: _system_row(system, folder, ladder, graded, graded.get(VANILLA))
        for system in systems
    }
    vanilla, ours = rows.get(VANILLA), rows.get(OURS)
    rate_ratio = slo_ratio = rates = scales = None
    by_name = {system.name: system for system in systems}
    if vanilla and ours:
        rate_ratio = _ratio(ours.max_rate_at_90, vanilla.max_rate_at_90)
        slo_ratio = _ratio(vanilla.tightest_scale_at_90, ours.tightest_scale_at_90)
        rates = rate_ratio_interval(folder.slowdowns, OURS, VANILLA, ladder.scale)
        scales = scale_ratio_interval(
            folder.slowdowns, by_name[OURS], by_name[VANILLA], ladder.scale_rate, ladder.scale
        )
    return OnlineReport(
        systems=tuple(rows.values()),
        rate_ratio=rate_ratio,
        rate_ratio_interval=rates,
        slo_ratio=slo_ratio,
        slo_ratio_interval=scales,
        scale_rate=ladder.scale_rate,
        slo_scale=ladder.scale,
        unloaded=dict(reference.unloaded),
        capacity=reference.capacity,
        failed=sum(
            completion.reason == "failed"
            for result in folder.results.values()
            for completion in result.completions
        ),
    )


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _of(folder: OnlineFolder, system: str) -> list[PointResult]:
    return [result for point, result in folder.results.items() if point.system == system]


def runs_held(
    results: Sequence[PointResult], unloaded: Mapping[str, float]
) -> Sequence[PointResult]:
    """The runs at rates and scales at which the target was held; all, where it never was.

    Who knows when answers are due gives poorer ones where it is asked for more than it can do.

    Args:
        results: of one system.
        unloaded: group -> latency of such a query alone, seconds.
    """
    met: dict[tuple[float, float], list[bool]] = {}
    for result in results:
        place = (result.point.rate, result.point.scale)
        within = [slowdown(c, unloaded) <= result.point.scale for c in result.counted]
        met.setdefault(place, []).extend(within)
    held = {place for place, each in met.items() if each and sum(each) >= TARGET * len(each)}
    return [
        result for result in results if (result.point.rate, result.point.scale) in held
    ] or results


def _by_question(results: Sequence[PointResult]) -> dict[str, list[bool]]:
    """Question -> whether each answer to it was right."""
    found: dict[str, list[bool]] = {}
    for result in results:
        for completion in result.completions:
            arrival = completion.arrival
            if completion.answered and completion.correct is not None and arrival.kind == "query":
                found.setdefault(arrival.question, []).append(completion.correct)
    return found


def _system_row(
    system: OnlineSystem,
    folder: OnlineFolder,
    ladder: Ladder,
    graded: Mapping[str, Mapping[str, Sequence[bool]]],
    vanilla: Mapping[str, Sequence[bool]] | None,
) -> SystemRow:
    name, seen = system.name, folder.slowdowns
    assert folder.reference is not None, "the benchmark has run"
    unloaded = folder.reference.unloaded
    swept: dict[float, list[PointResult]] = {}
    for result in sorted(_of(folder, name), key=lambda result: result.point):
        if result.point.scale == ladder.scale:
            swept.setdefault(result.point.rate, []).append(result)
    met = {
        rate: [slowdown(c, unloaded) <= ladder.scale for run in runs for c in run.counted]
        for rate, runs in swept.items()
    }
    most = highest_rate(shares(seen, name, ladder.scale))
    tightest, scales = _scales(system, folder, ladder, swept.get(ladder.scale_rate, []))
    change, interval = _change(graded[name], vanilla if name != VANILLA else None)
    means = [float(np.mean(answers)) for answers in graded[name].values()]
    return SystemRow(
        name=name,
        meaning=system.meaning,
        accuracy=float(np.mean(means)) if means else None,
        accuracy_change=change,
        accuracy_change_interval=interval,
        tokens=_tokens(_of(folder, name)),
        rates=tuple(_rate_row(rate, runs, met[rate], vanilla) for rate, runs in swept.items()),
        max_rate_at_90=most.value,
        max_rate_is_bound=most.bound,
        max_rate_interval=rate_interval(met),
        tightest_scale_at_90=tightest.value,
        scales=scales,
    )


def _scales(
    system: OnlineSystem, folder: OnlineFolder, ladder: Ladder, runs: Sequence[PointResult]
) -> tuple[Crossing, dict[float, float]]:
    """The tightest scale, and attainment by scale, at the rate where scales are compared."""
    assert folder.reference is not None, "the benchmark has run"
    if system.when_due:
        live = live_scales(folder.slowdowns, system.name, ladder.scale_rate)
        return tightest_scale(live), live
    slowdowns = sorted(
        slowdown(completion, folder.reference.unloaded)
        for run in runs
        for completion in run.counted
    )
    if not slowdowns:
        return Crossing(None), {}
    tightest = quantile(slowdowns, TARGET)
    curve = {scale: attainment(slowdowns, scale) or 0.0 for scale in slowdowns}
    finite = {scale: share for scale, share in curve.items() if scale < float("inf")}
    return Crossing(tightest if tightest < float("inf") else None), finite


def _change(
    system: Mapping[str, Sequence[bool]], vanilla: Mapping[str, Sequence[bool]] | None
) -> tuple[float | None, Interval | None]:
    common = [question for question in system if vanilla and question in vanilla]
    if not common or vanilla is None:
        return None, None
    each = 100 * np.array([np.mean(system[q]) - np.mean(vanilla[q]) for q in common])
    return float(each.mean()), bootstrap(each)


def _tokens(results: Sequence[PointResult]) -> float | None:
    """Output tokens a query; each question counts once, so that rates with more queries do not."""
    by_question: dict[str, list[int]] = {}
    for result in results:
        for completion in result.completions:
            if completion.answered and completion.arrival.kind == "query":
                by_question.setdefault(completion.arrival.question, []).append(completion.tokens)
    if not by_question:
        return None
    return float(np.mean([np.mean(tokens) for tokens in by_question.values()]))


def _rate_row(
    rate: float,
    runs: Sequence[PointResult],
    met: Sequence[bool],
    vanilla: Mapping[str, Sequence[bool]] | None,
) -> RateRow:
    counted = [completion for run in runs for completion in run.counted]
    answered: list[Completion] = [c for run in runs for c in run.completions if c.answered]
    seconds = sum(run.seconds for run in runs)
    latencies = latencies_of(counted)
    change, interval = _change(_by_question(runs), vanilla)
    return RateRow(
        rate=rate,
        attainment=sum(met) / len(met) if met else None,
        attainment_interval=share_interval(met),
        mean=latencies.mean,
        p50=latencies.p50,
        p90=latencies.p90,
        p99=latencies.p99,
        longest=latencies.longest,
        queries=len(counted),
        unfinished=sum(not completion.answered for completion in counted),
        cut_short=sum(completion.reason == CUT_SHORT for completion in counted),
        accuracy_change=change,
        accuracy_change_interval=interval,
        queries_per_second=len(answered) / seconds,
        tokens_per_second=sum(completion.tokens for completion in answered) / seconds,
        preemptions=_mean(runs, "preemptions"),
        recomputed_tokens=_mean(runs, "recomputed_tokens"),
        kv_peak=_most([run.counters.get("kv_peak") for run in runs]),
        kv_mean=_mean(runs, "kv_mean"),
        send_lateness_p99=_most([run.generator.get("lateness_p99") for run in runs]),
        generator_cpu=_most([run.generator.get("cpu_share") for run in runs]),
    )


def _mean(runs: Sequence[PointResult], counter: str) -> float | None:
    values = [run.counters[counter] for run in runs if counter in run.counters]
    return float(np.mean(values)) if values else None


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
