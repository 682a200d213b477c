import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.stopping import parse_rule
from certaindex.value import value_of_next_sample
from certaindex.votes import Votes
from dynasor.errors import DataError
from dynasor.replay import (
    RecordedQuery,
    collect_queries,
    full_answer,
    replay,
    run_query,
)
from dynasor.replay_budget import replay_budget
from dynasor.replay_results import ReplayResult
from dynasor.traces import TraceSample, read_traces

SHARED = Path(__file__).parents[3] / "shared" / "traces"


def query(*samples: tuple[str | None, int], gold: str | None = "a") -> RecordedQuery:
    rows = [TraceSample("q", i, tokens, answer, gold) for i, (answer, tokens) in enumerate(samples)]
    return collect_queries(rows)[0]


def run(recorded: RecordedQuery, rule: str, wave: int):  # type: ignore[no-untyped-def]
    order = range(len(recorded.groups))
    return run_query(recorded, order, parse_rule(rule), wave, full_answer(recorded, order))


def test_one_at_a_time_costs_the_samples_until_the_stop() -> None:
    outcome = run(query(("a", 10), ("b", 20), ("b", 30), ("a", 40)), "fixed:3", wave=1)
    assert outcome == (False, True, 60, 3, 60, "certain")  # 2 to 2: b led first


def test_a_wave_cuts_what_runs_and_counts_its_tokens() -> None:
    # At 10 the first ends and the third starts; at 20 the second ends, the third has spent 10.
    outcome = run(query(("a", 10), ("a", 20), ("b", 99), ("b", 99)), "fixed:2", wave=2)
    assert outcome == (True, True, 10 + 20 + 10, 2, 20, "certain")


def test_all_in_flight_take_as_long_as_the_longest() -> None:
    outcome = run(query(("a", 10), ("b", 20), ("b", 99), ("b", 40)), "fixed:64", wave=4)
    assert outcome == (False, True, 169, 4, 99, "complete")


def test_short_samples_vote_first_in_a_wave() -> None:
    outcome = run(query(("b", 50), ("a", 5), ("a", 6)), "fixed:2", wave=3)
    assert outcome == (True, True, 5 + 6 + 6, 2, 6, "certain")


def test_the_longest_chain_is_the_latency() -> None:
    # Lane one: 10 then 30 (ends at 40). Lane two: 25, then 5 (ends at 30), then 1 (ends at 31).
    samples = [("a", n) for n in (10, 25, 30, 5, 1)]
    assert run(query(*samples), "fixed:64", wave=2)[2:5] == (71, 5, 40)


def test_samples_without_an_answer_cost_tokens_only() -> None:
    outcome = run(query((None, 10), (None, 10), ("a", 10)), "fixed:2", wave=1)
    assert outcome == (False, False, 20, 2, 20, "certain")


answers = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=12)


@settings(deadline=None)
@given(answers)
def test_the_full_answer_is_the_leader_of_the_votes(given_answers: list[str | None]) -> None:
    recorded = query(*((answer, 1) for answer in given_answers))
    votes = Votes(max_samples=len(given_answers))
    seen: dict[int, int] = {}
    for group in recorded.groups:
        votes.add(None if group is None else seen.setdefault(group, len(seen)), 1)
    expected = None if votes.leader is None else list(seen)[votes.leader]
    assert full_answer(recorded, range(len(given_answers))) == expected


@settings(deadline=None)
@given(answers, st.integers(1, 5), st.lists(st.integers(0, 50), min_size=12, max_size=12))
def test_the_whole_budget_costs_all_tokens_in_any_wave(
    given_answers: list[str | None], wave: int, tokens: list[int]
) -> None:
    recorded = query(*zip(given_answers, tokens, strict=False))
    outcome = run(recorded, "fixed:64", wave)
    assert outcome.tokens == sum(recorded.tokens)
    assert max(recorded.tokens) <= outcome.latency <= outcome.tokens


def recorded_set() -> list[RecordedQuery]:
    rows = [
        TraceSample(f"q{number}", i, 10 + i, "a" if (i + number) % 3 else "b", "a")
        for number in range(6)
        for i in range(20)
    ]
    return collect_queries(rows)


def replayed(**options: int) -> ReplayResult:
    rules = {text: parse_rule(text) for text in ("default", "fixed:4", "fixed:20")}
    return replay(recorded_set(), rules, **options)


def test_the_seed_decides() -> None:
    def numbers(seed: int) -> str:
        return json.dumps(replayed(orders=20, seed=seed).to_json())

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


def test_the_report_has_the_promised_fields() -> None:
    report = replayed(orders=5).to_json()
    assert report["queries"] == 6
    assert report["max_samples"] == 20
    row = report["rules"][2]
    assert row["rule"] == "fixed:20"
    assert row["tokens_ratio"] == 1
    assert row["agreement"] == 1
    assert row["samples"] == 20
    assert row["reasons"] == {"complete": 1}
    assert {"accuracy", "tokens", "loss_interval", "latency"} <= set(row)
    assert replayed(orders=5, max_samples=8).to_json()["rules"][1]["samples"] == 4


def test_bad_budgets_are_named() -> None:
    with pytest.raises(DataError, match="recorded samples of query q0"):
        replayed(max_samples=21)
    with pytest.raises(DataError, match="no samples"):
        replay([], {})


@settings(deadline=None)
@given(st.floats(0.05, 1.0))
def test_the_global_budget_is_kept(budget: float) -> None:
    result = replay_budget(recorded_set(), value_of_next_sample, budget=budget, orders=3)
    assert result.tokens_ratio <= budget + 1e-9
    assert budget < 1 or result.agreement == 1


def test_the_global_budget_goes_where_the_value_is() -> None:
    rows = [TraceSample("easy", i, 10, "a", "a") for i in range(20)]
    rows += [TraceSample("split", i, 10, "ab"[i % 2], "a") for i in range(20)]
    result = replay_budget(collect_queries(rows), value_of_next_sample, budget=0.5, orders=20)
    easy, split = result.by_query[:, 1]
    assert split > 3 * easy


@pytest.fixture(scope="module")
def real() -> list[RecordedQuery]:
    path = SHARED / "gsm8k.Qwen2.5-Coder-1.5B-Instruct.jsonl.gz"
    if not path.exists():
        pytest.skip("needs the recorded samples")
    return collect_queries(read_traces(path))


def test_the_default_saves_tokens_and_keeps_accuracy_on_real_samples(
    real: list[RecordedQuery],
) -> None:
    result = replay(real, {"default": parse_rule("default")}, orders=60).rules[0]
    assert result.loss_interval[0] <= 0.5
    assert result.tokens_ratio < 0.7


def test_without_right_answers_nothing_is_graded():
    samples = [
        TraceSample(query="q", sample=number, tokens=5, answer=answer)
        for number, answer in enumerate("aab")
    ]
    result = replay(collect_queries(samples), {"fixed:2": parse_rule("fixed:2")}, orders=4)
    row = result.to_json()
    assert row["full_accuracy"] is None
    assert row["rules"][0]["accuracy"] is row["rules"][0]["loss_interval"] is None
    assert row["rules"][0]["tokens"] == 10
