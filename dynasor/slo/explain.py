"""The result of `dynasor tune` in words, and as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dynasor.slo.prediction import DAY, LATE, ClassPrediction, Problem
from dynasor.slo.refusal import too_few, words, words_of
from dynasor.slo.tune import NOT_REACHED, REPEATS, Neighbour, Tuned


def explain(tuned: Tuned, problem: Problem) -> Iterator[str]:
    """Paragraphs: what was chosen, why it keeps each part of the promise, what would be cheaper."""
    yield (
        f"Chosen: {words(tuned.plan)}. It is the cheapest of the plans that keep all that is promised "
        f"at {problem.rate:g} queries a second; the search tried {len(tuned.tried)}."
    )
    for name in problem.promises:
        yield from _class(tuned, problem, name)


def _class(tuned: Tuned, problem: Problem, name: str) -> Iterator[str]:
    promise, guarantee = problem.promises[name], tuned.guarantees[name]
    chosen, expected, held = tuned.chosen(name), tuned.expected[name], tuned.held[name]
    figures, split = chosen.figures, problem.splits[name]
    assert promise.epsilon is not None, "checked before the search"
    what = (
        "answers that differ from the full budget's"
        if promise.loss == "answer"
        else "accuracy lost against the full budget"
    )
    sure = (
        "in the mean over calibrations"
        if promise.guarantee == "mean"
        else f"with {100 * (1 - promise.risk):g}% confidence"
    )
    yield (
        f"Class {name} was promised a loss of at most {100 * promise.epsilon:g} points ({what}) "
        f"{sure}. Of its {len(problem.tables[name].queries)} recorded queries, {len(split.search)} "
        f"were searched on, {len(split.calibrate)} calibrated, {len(split.held)} held out."
    )
    if not guarantee.enough:
        yield f"There is {too_few(name, promise, guarantee)}."
    elif problem.tables[name].is_full(chosen.setting):
        yield (
            "The full budget itself was chosen: it loses nothing by definition. No bolder setting was "
            "certified that keeps the other promises too."
        )
    else:
        yield (
            f"{words_of(chosen.setting)} lost {100 * figures.loss:.2g} points on the calibrated "
            f"queries; by itself that bounds its true loss to {100 * figures.bound:.2g} points. "
            f"{len(guarantee.certified)} of {len(guarantee.tested)} tested settings are certified, all "
            "at once, so the choice among them costs no confidence."
        )
    full = guarantee.tested[0].figures
    yield (
        f"It takes {expected.tokens:,.0f} tokens and {expected.samples:.1f} samples a query, "
        f"{expected.tokens / full.tokens:.0%} of the full budget's {full.tokens:,.0f}."
    )
    for percent, seconds in promise.targets or [(90.0, 0.0)]:
        interval = expected.latency.interval(percent)
        around = "" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]"
        target = f", promised {seconds:g}" if promise.targets else ""
        yield (
            f"p{percent:g} of latency is predicted at {expected.latency.percentile(percent):.3g} s"
            f"{around} over {len(REPEATS)} simulated runs{target}."
        )
    if promise.deadline is not None:
        yield cut_short(promise.deadline, expected)
    if promise.tokens_per_day is not None:
        day = expected.tokens * problem.class_rate(name) * DAY
        yield f"A day takes {day:,.0f} tokens, of {promise.tokens_per_day:,} promised."
    yield (
        f"On the {len(split.held)} held-out queries: loss {100 * held.loss:.2g} points, "
        f"{held.tokens:,.0f} tokens, p90 {held.latency.percentile(90):.3g} s."
    )
    for each in tuned.neighbours:
        if each.group == name:
            other = each.tested.figures
            yield (
                f"Next to it, {words_of(each.tested.setting)}: {other.tokens:,.0f} tokens, loss "
                f"{100 * other.loss:.2g} points (bound {100 * other.bound:.2g}), p90 "
                f"{each.latency:.3g} s; {each.fate}."
            )


def not_reached(neighbours: Sequence[Neighbour]) -> str | None:
    """What it means that a setting was not reached, where one was not."""
    if not any(each.fate.startswith(NOT_REACHED) for each in neighbours):
        return None
    return (
        f"{NOT_REACHED}: settings are tested in sequences that the searched queries have fixed, each up "
        "to the first that fails; those behind it are not certified, however good their own bound is."
    )


def cut_short(deadline: float, expected: ClassPrediction) -> str:
    """How many queries will reach their deadline, and what that means for their answers."""
    late = expected.latency.share_above(deadline)
    return (
        f"{late:.1%} of the queries are predicted to reach the deadline of {deadline:g} s (at most "
        f"{LATE:.0%} may); the promised loss does not cover the answers that they then get."
    )


def to_json(tuned: Tuned, problem: Problem) -> dict[str, Any]:
    """Plain values of all that `explain` says."""
    classes = {}
    for name, promise in problem.promises.items():
        guarantee, expected = tuned.guarantees[name], tuned.expected[name]
        percents = [percent for percent, _ in promise.targets] or [90.0]
        classes[name] = {
            "promise": promise.model_dump(mode="json", exclude={"settings"}),
            "setting": tuned.plan.settings[name]._asdict(),
            "calibration": tuned.chosen(name).figures.model_dump(mode="json"),
            "queries": {part: len(p) for part, p in problem.splits[name]._asdict().items()},
            "needed": guarantee.needed,
            "enough": guarantee.enough,
            "tested": [
                each.figures.model_dump(mode="json") | {"certified": each.certified}
                for each in guarantee.tested
            ],
            "expected": {
                "tokens": expected.tokens,
                "samples": expected.samples,
                "loss": expected.loss,
                "latency": {f"p{p:g}": expected.latency.percentile(p) for p in percents},
                "latency_interval": {f"p{p:g}": expected.latency.interval(p) for p in percents},
            },
            "held_out": {
                "tokens": tuned.held[name].tokens,
                "loss": tuned.held[name].loss,
                "latency": {f"p{p:g}": tuned.held[name].latency.percentile(p) for p in percents},
            },
            "neighbours": [
                each.tested.figures.model_dump(mode="json")
                | {
                    "certified": each.tested.certified,
                    "p90": each.latency,
                    "broken": [f"{short.group}.{short.part}" for short in each.short],
                }
                for each in tuned.neighbours
                if each.group == name
            ],
        }
    return {
        "rate": problem.rate,
        "platform": tuned.plan.platform._asdict(),
        "classes": classes,
        "tried": [
            {
                "plan": words(each.plan),
                "tokens": each.tokens,
                "p90": each.latency,
                "loss": each.loss,
                "kept": each.kept,
            }
            for each in tuned.tried
        ],
    }
