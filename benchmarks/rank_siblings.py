"""How well the remaining tokens of a gang are known after 0, 1, 2 and 4 of its samples have finished.

python benchmarks/rank_siblings.py TRACE... [--prompts TRACE=SUITE] [--wave 1] [--rule default]
    [--evidence FILE] [--backbone NAME --pooling last]

Recorded samples are played in random orders, `wave` at once, until the rule stops the question.
Kendall's tau between the tokens that were still to come (those of cut samples too) and: the rank of the
prompt; the mean of the finished siblings; that times the samples that votes like these take, as before
refinement; the refined forecast, as the scheduler gets it, also without the rank and without what is
known of samples that run. With a rule that stops early only the hard gangs go on; `--rule fixed:8
--samples 8` follows the same gangs at each moment. With --evidence votes are weighed by likelihood, as
the service does where that was learned of the model. Half of the questions teach ranker, calibration
and forecast, each asked once, the other half is measured, and then the other way round. Traces without
prompts have no rank. Tau is that of one order of each question, mean over orders and halves; 95%
intervals by bootstrap over questions; of several traces also the mean over them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from halves import tuning_half
from probed_prompts import Prober
from scipy.stats import kendalltau
from suite_prompts import with_prompts

from certaindex.stopping import StopRule, parse_rule
from certaindex.votes import Votes
from dynasor.bench.recorded import RecordedQuestion, collect_questions
from dynasor.ranking.backbone import DEFAULT_BACKBONE
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.ranked import Ranked, ranked_by
from dynasor.scheduling.forecast import Forecast, QueryForecast
from dynasor.scheduling.further_samples import samples_to_come, standing_of
from dynasor.traces import read_traces
from dynasor.vote_weights import read_evidence

FINISHED = (0, 1, 2, 4)
DRAWS = 300
PREDICTORS = ("prompt rank", "sibling mean", "siblings x votes", "refined", "no rank", "no bounds")


class Moment(NamedTuple):
    """A gang when some samples have finished: what is foreseen, and what came."""

    finished: int
    foreseen: dict[str, float]
    inside: bool
    truth: int


class Snapshot(NamedTuple):
    votes: Votes
    running: list[int]


def play(
    question: RecordedQuestion,
    weights: Sequence[float],
    order: Sequence[int],
    rule: StopRule,
    wave: int,
) -> Iterator[tuple[Snapshot, int | None]]:
    """The gang after each finished sample with that one's tokens, and at last as it was stopped."""
    votes = Votes(max_samples=len(order))
    running: list[tuple[int, int]] = []
    begun = now = 0

    def snapshot() -> Snapshot:
        so_far = [now - (end - question.tokens(order[place])) for end, place in running]
        return Snapshot(deepcopy(votes), so_far)

    ended: int | None = None
    dense: dict[int, int] = {}
    while True:
        while len(running) < wave and begun < len(order):
            heappush(running, (now + question.tokens(order[begun]), begun))
            begun += 1
        yield snapshot(), ended
        now, place = heappop(running)
        sample = order[place]
        group, ended = question.query.groups[sample], question.tokens(sample)
        seen = None if group is None else dense.setdefault(group, len(dense))
        votes.add(seen, ended, weights[sample])
        if votes.n == len(order) or rule.decide(votes).stop is not None:
            yield snapshot(), ended
            return


def watch(
    played: Iterator[tuple[Snapshot, int | None]],
    forecasts: Mapping[str, QueryForecast],
    limit: int | None,
) -> list[tuple[Snapshot, dict[str, tuple[float, bool]], Any]]:
    """Teach the forecasts of a gang as it is played; the moments that are asked for."""
    seen = []
    for snapshot, ended in played:
        if ended is not None:
            for each in forecasts.values():
                each.sample_ended(ended, cut=limit is not None and ended >= limit)
        seen.append((snapshot, _foresee(snapshot, forecasts)))
    last = seen.pop()[0]
    for each in forecasts.values():
        each.ended(last.votes)
    spent = last.votes.total_tokens + sum(last.running)
    return [
        (at, told, spent - at.votes.total_tokens - sum(at.running))
        for at, told in seen
        if at.votes.n in FINISHED
    ]


def _foresee(at: Snapshot, forecasts: Mapping[str, QueryForecast]) -> dict[str, Any]:
    told = {name: each.remaining(at.votes, at.running) for name, each in forecasts.items()}
    blind = forecasts["refined"].remaining(at.votes, [])
    return {**told, "no bounds": blind}


def measure(
    questions: Mapping[str, RecordedQuestion],
    half: set[str],
    prober: Prober,
    options: argparse.Namespace,
) -> list[list[list[Moment]]]:
    """Moments by question and order, of the questions outside of the half that teaches."""
    rule = parse_rule(options.rule)
    evidence = read_evidence(options.evidence) if options.evidence else None
    weights = {name: each.query.weights(evidence) for name, each in questions.items()}
    limit = _limit(questions)
    ranks = _ranks(questions, half, prober)
    forecasts = {"refined": Forecast(rule, limit=limit), "no rank": Forecast(rule, limit=limit)}
    draw = random.Random(options.seed)
    mean = float(np.mean([t for q in half for t in questions[q].query.tokens]))

    def gang(name: str) -> list[Any]:
        rank = ranks.get(name)
        own = {
            each: forecast.query(rank if each == "refined" else None)
            for each, forecast in forecasts.items()
        }
        recorded = len(questions[name].query.groups)
        order = draw.sample(range(recorded), min(options.samples, recorded))
        played = play(questions[name], weights[name], order, rule, options.wave)
        return watch(played, own, limit)

    for name in sorted(half):
        gang(name)

    def moment(name: str, at: Snapshot, told: Mapping[str, Any], truth: int) -> Moment:
        n, total = at.votes.n, at.votes.total_tokens
        further = samples_to_come(rule, standing_of(at.votes), at.votes.max_samples)
        rank = ranks.get(name)
        foreseen = {
            "prompt rank": 0.0 if rank is None else rank.rank,
            "sibling mean": total / n if n else 0.0,
            "siblings x votes": (total + mean) / (n + 1) * further,
            **{each: value.tokens for each, value in told.items()},
        }
        refined = told["refined"]
        return Moment(n, foreseen, refined.low <= truth <= refined.high, truth)

    return [
        [[moment(name, *each) for each in gang(name)] for _ in range(options.orders)]
        for name in sorted(set(questions) - half)
    ]


def _limit(questions: Mapping[str, RecordedQuestion]) -> int | None:
    """The token limit of the recording: the largest count, where several samples have it."""
    tokens = np.concatenate([question.query.tokens for question in questions.values()])
    return int(tokens.max()) if (tokens == tokens.max()).sum() >= 5 else None


def _ranks(
    questions: Mapping[str, RecordedQuestion], half: set[str], prober: Prober
) -> dict[str, Ranked]:
    """Of all questions, by a ranker of one half; those of that half were held out."""
    prompts = {name: each.prompt for name, each in questions.items() if each.prompt is not None}
    if len(prompts) < len(questions) or len(half) < 100:
        return {}
    taught = sorted(half)
    examples = [_example(name, questions[name]) for name in taught]
    ranker, held_out = prober.fit(examples)
    calibration = LengthCalibration.fit(held_out, examples)

    class HeldOut:
        name = ranker.name

        def score(self, prompts: Sequence[str]) -> Any:
            return held_out

    rest = sorted(set(questions) - half)
    found = ranked_by(ranker, calibration, [prompts[name] for name in rest])
    found += ranked_by(HeldOut(), calibration, [prompts[name] for name in taught])
    return {name: rank for name, rank in zip(rest + taught, found, strict=True) if rank}


def _example(name: str, question: RecordedQuestion) -> LengthExample:
    logs = np.log(np.maximum(question.query.tokens, 1))
    spread = float(logs.std(ddof=1))
    # The mean of a log-normal: a plain one is that of the few samples that ran away.
    mean = float(np.exp(logs.mean() + spread**2 / 2))
    return LengthExample(question.prompt or "", mean, name, len(logs), spread)


def tau(moments: Sequence[Moment], predictor: str) -> float:
    value = kendalltau([m.foreseen[predictor] for m in moments], [m.truth for m in moments])[0]
    return 0.0 if np.isnan(value) else float(value)  # all are foreseen alike


def _at(gang: Sequence[Moment], finished: int) -> Moment | None:
    return next((moment for moment in gang if moment.finished == finished), None)


def mean_tau(folds: Sequence[Sequence[Sequence[Moment | None]]], predictor: str) -> float:
    """Mean over the folds, and over the random orders in which their questions were played."""
    found = []
    for fold in folds:
        for order in zip(*fold, strict=True):
            there = [moment for moment in order if moment is not None]
            if len(there) > 1:
                found.append(tau(there, predictor))
    return float(np.mean(found))


def summarise(name: str, folds: list[list[list[list[Moment]]]], seed: int) -> list[dict[str, Any]]:
    """A row for each number of finished samples."""
    rows = []
    for k in FINISHED:
        by_fold = [
            [at for gangs in found if any(at := [_at(gang, k) for gang in gangs])]
            for found in folds
        ]
        if min(len(fold) for fold in by_fold) < 5:
            continue
        draw = np.random.default_rng(seed)
        drawn: dict[str, list[float]] = {each: [] for each in PREDICTORS}
        for _ in range(DRAWS):
            again = [
                [fold[p] for p in draw.integers(len(fold), size=len(fold))] for fold in by_fold
            ]
            for each in PREDICTORS:
                drawn[each].append(mean_tau(again, each))
        taus = {each: np.array(values) for each, values in drawn.items()}
        whole = {each: mean_tau(by_fold, each) for each in PREDICTORS}
        by_question = [[at for at in each if at] for fold in by_fold for each in fold]
        moments = [m for gangs in by_question for m in gangs]
        rows.append(
            {
                "set": name,
                "finished": k,
                "questions": len(by_question),
                "tau": whole,
                "over_prompt": _interval(taus["refined"] - taus["prompt rank"]),
                "over_siblings": _interval(taus["refined"] - taus["sibling mean"]),
                "over_before": _interval(taus["refined"] - taus["siblings x votes"]),
                "mean_over_siblings": whole["refined"] - whole["sibling mean"],
                "draws_over_siblings": (taus["refined"] - taus["sibling mean"]).tolist(),
                "inside": float(np.mean([m.inside for m in moments])),
                "foreseen_over_true": sum(m.foreseen["refined"] for m in moments)
                / max(1, sum(m.truth for m in moments)),
            }
        )
    return rows


def over_sets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean over the sets of how far refined ranks are above the siblings' mean."""
    found = []
    for k in FINISHED:
        here = [row for row in rows if row["finished"] == k]
        draws = [row.pop("draws_over_siblings") for row in here]
        if len(here) > 1:
            found.append(
                {
                    "sets": len(here),
                    "finished": k,
                    "over_siblings": float(np.mean([row["mean_over_siblings"] for row in here])),
                    "interval": _interval(np.mean(draws, axis=0)),
                }
            )
    return found


def _interval(values: Any) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="+", help="recorded samples")
    parser.add_argument("--prompts", action="append", default=[], metavar="TRACE=SUITE",
                        help="prompts by place in a suite, for queries named NAME/PLACE")  # fmt: skip
    parser.add_argument("--rule", default="default")
    parser.add_argument("--wave", type=int, default=1)
    parser.add_argument("--evidence", type=Path, help="file of `dynasor evidence`")
    parser.add_argument("--samples", type=int, default=32, help="full budget")
    parser.add_argument("--orders", type=int, default=6, help="random orders a question")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="that reads prompts")
    parser.add_argument("--pooling", default="mean", help="mean, or last (for decoders)")
    options = parser.parse_args()
    prober = Prober(options)
    suites = dict(each.split("=", 1) for each in options.prompts)
    rows: list[dict[str, Any]] = []
    for path in options.traces:
        name = Path(path).name if Path(path).name != "samples.jsonl" else Path(path).parent.name
        questions = collect_questions(read_traces(path, skip_torn_end=True))
        if path in suites:
            questions = with_prompts(questions, suites[path])
        half = tuning_half(questions)
        folds = [
            measure(questions, each, prober, options) for each in (half, set(questions) - half)
        ]
        rows += summarise(name, folds, options.seed)
    together = over_sets(rows)
    if options.json:
        print(json.dumps({**vars(options), "rows": rows, "mean": together}, default=str))
        return
    print(f"rule {options.rule}, {options.samples} samples, {options.wave} at once")
    print("| set | finished | questions | " + " | ".join(PREDICTORS) + " | refined - prompt | "
          "refined - siblings | refined - before | in its interval | foreseen / true |")  # fmt: skip
    print("|---" * (len(PREDICTORS) + 8) + "|")
    for row in rows:
        taus = " | ".join(f"{row['tau'][each]:.2f}" for each in PREDICTORS)
        ranges = " | ".join(
            f"{row[each][0]:+.3f} to {row[each][1]:+.3f}"
            for each in ("over_prompt", "over_siblings", "over_before")
        )
        print(f"| {row['set']} | {row['finished']} | {row['questions']} | {taus} | {ranges} | "
              f"{row['inside']:.2f} | {row['foreseen_over_true']:.2f} |")  # fmt: skip
    for row in together:
        low, high = row["interval"]
        print(f"{row['sets']} sets, {row['finished']} finished: refined - siblings "
              f"{row['over_siblings']:+.3f} [{low:+.3f}, {high:+.3f}]")  # fmt: skip


if __name__ == "__main__":
    main()
