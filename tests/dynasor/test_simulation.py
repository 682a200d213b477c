"""The benchmark in virtual time: real programs, allocator and policies on simulated replicas."""

import pytest
from hypothesis import given, settings, strategies

from certaindex.stopping import parse_rule
from certaindex.value import value_of_next_sample
from dynasor.allocator import GlobalBudget, PerQuery
from dynasor.bench.recorded import collect_questions, self_consistency
from dynasor.bench.simulation import Cluster, queue_builder, simulate
from dynasor.bench.virtual_front_end import FrontEnd
from dynasor.bench.workload import Arrival
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.simulated import Replica
from dynasor.engines.step_time import StepTime
from dynasor.errors import ConfigError, DataError, EngineError
from dynasor.replay import replay
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.policies import POLICIES
from dynasor.scheduling.queue import Aging
from dynasor.traces import TraceSample
from tests.dynasor.simulated_traffic import arrivals, cluster, fixed, one, questions

# By hand ------------------------------------------------------------------------------------------


def test_samples_of_a_wave_of_one_follow_each_other():
    result = simulate(
        [Arrival("a", 10.0, "q", "query", "g", 20.0)],
        one([4, 4, 4], ["7", "7", "8"]),
        cluster(),
        fixed(3, 1),
        samples=3,
    )
    (done,) = result.completions
    assert done.latency == 12  # a step a token, and the prompt's step gives the first one
    assert (done.tokens, done.samples, done.correct, done.met) == (12, 3, True, True)
    assert done.first_service == 1
    assert done.reason == "complete"


def test_a_stop_cuts_what_runs_and_bills_it():
    rows = one([2, 2, 9], ["7", "7", "7"])
    for seed in range(20):  # whichever sample comes in which place
        result = simulate(
            [Arrival("a", 0.0, "q", "query", "g", None)],
            rows,
            cluster(),
            fixed(2, 3),
            samples=3,
            seed=seed,
        )
        (done,) = result.completions
        # After 2 steps two samples have ended, the third has 2 tokens.
        assert (done.latency, done.samples, done.tokens) == (2, 2, 6)


def test_the_front_end_takes_its_time():
    result = simulate(
        [Arrival("a", 0.0, "q", "query", "g", None)],
        one([4, 4], ["7", "7"]),
        cluster(overhead=0.25),
        fixed(2, 1),
        samples=2,
    )
    assert result.completions[0].latency == 0.25 + 4 + 0.25 + 4 + 0.25


def test_the_router_sends_queries_to_the_least_loaded_replica():
    rows = one([10, 10], ["7", "7"])
    both = [Arrival(name, 0.0, "q", "query", "g", None) for name in "ab"]
    apart = simulate(both, rows, cluster(2, max_running=2), fixed(2, 2), samples=2)
    assert [done.latency for done in apart.completions] == [10, 10]
    together = simulate(both, rows, cluster(1, max_running=2), fixed(2, 2), samples=2)
    assert [done.latency for done in together.completions] == [10, 20]
    assert [each.steps for each in apart.replicas] == [10, 10]


def test_a_query_with_little_left_goes_first_where_the_policy_says_so():
    rows = one([10] * 8, ["7"] * 8)
    mixed = [
        Arrival("first", 0.0, "q", "chat", "g", None),
        Arrival("long", 1.0, "q", "query", "g", None),
        Arrival("chat", 2.0, "q", "chat", "g", None),
    ]

    def ends(policy):
        rule = parse_rule("fixed:8")
        result = simulate(
            mixed,
            rows,
            cluster(max_running=1),
            PerQuery(rule, 8),
            samples=8,
            policy=policy,
            forecast=Forecast(rule, tokens=10),
        )
        return [done.arrival.id for done in result.completions]

    assert ends("vllm") == ["first", "long", "chat"]
    assert ends("gang-srpt") == ["first", "chat", "long"]


# Against the replay --------------------------------------------------------------------------------


def test_alone_a_query_does_what_the_replay_of_its_rule_does():
    # One sample at a time, one replica, nobody else: tokens and samples do not depend on timing.
    trace = questions(seed=3, count=12, samples=16)
    rule = parse_rule("certaindex:0.8")
    spread = [
        Arrival(f"{name}/{turn}", 1e5 * (200 * n + turn), name, "query", "g", None)
        for n, name in enumerate(trace)
        for turn in range(200)
    ]
    done = simulate(spread, trace, cluster(), PerQuery(rule, 1), samples=16).completions
    expected = replay([each.query for each in trace.values()], {"r": rule}, orders=200)
    (row,) = expected.rules
    mean_tokens = sum(each.tokens for each in done) / len(done)
    assert mean_tokens == pytest.approx(row.tokens, rel=0.05)
    assert sum(each.latency for each in done) / len(done) == pytest.approx(row.latency, rel=0.05)
    assert sum(bool(each.correct) for each in done) / len(done) == pytest.approx(
        row.accuracy, abs=0.03
    )


# Laws ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=strategies.integers(0, 10_000),
    policy=strategies.sampled_from(["vllm", *sorted(POLICIES)]),
    replicas=strategies.integers(1, 3),
    wave=strategies.integers(1, 8),
    shared=strategies.booleans(),
)
def test_all_is_answered_and_billed_once_and_nothing_is_left(seed, policy, replicas, wave, shared):
    trace = questions(seed)
    rule = parse_rule("certaindex:0.7,min=2")
    allocator = (
        GlobalBudget(1500, value_of_next_sample, slots=6) if shared else PerQuery(rule, wave)
    )
    small = cluster(
        replicas,
        StepTime(0.1, 0.01, 0.001, 1e-5),
        overhead=0.05 * (seed % 2),
        max_running=4,
        max_batched_tokens=64,
        kv_blocks=40,
        block_size=4,
    )
    coming = list(arrivals(30, list(trace), rate=0.5, seed=seed, deadline=30.0))
    result = simulate(
        coming,
        trace,
        small,
        allocator,
        samples=8,
        policy=policy,
        aging=Aging(5.0, 3),
        forecast=Forecast(rule, tokens=30),
        seed=seed,
    )
    assert sorted(done.arrival.id for done in result.completions) == sorted(a.id for a in coming)
    for done in result.completions:
        recorded = sorted(trace[done.arrival.question].query.tokens)
        budget = 1 if done.arrival.kind == "chat" else 8
        assert 0 <= done.samples <= budget
        assert sum(recorded[: done.samples]) <= done.tokens <= sum(recorded[-budget:])
        assert done.latency >= 0.1 * done.samples / max(wave, 1)
    assert all(each.kv_peak <= 1 for each in result.replicas)
    counters = result.counters()
    assert counters["running_mean"] <= 4
    assert counters["busy_seconds"] <= replicas * result.seconds + 1e-6


@pytest.mark.parametrize("policy", ["vllm", "feasible-srpt"])
def test_replicas_are_empty_at_the_end(policy):
    trace = questions(6)
    rule = parse_rule("certaindex:0.7,min=2")
    small = cluster(2, max_running=4, kv_blocks=40, block_size=4)
    build = queue_builder(policy, Aging())
    replicas = [Replica(small.replica, build) for _ in range(2)]
    plan = PerQuery(rule, 6)
    votes = self_consistency()
    front = FrontEnd(replicas, small, build, trace, plan, 8, Forecast(rule), {}, False, votes, "0")
    front.run(arrivals(60, list(trace), rate=1.0), None)
    assert len(front.completions) == 60
    assert sum(each.counters.preemptions for each in replicas) > 0
    for each in replicas:
        assert (each.free_blocks, each.running, each.waiting) == (40, 0, 0)


def test_a_fixed_number_of_samples_costs_the_same_under_any_policy():
    # Work is conserved: who goes first changes latencies, never the work.
    trace = questions(1)
    coming = list(arrivals(40, list(trace), rate=0.1, seed=1))
    totals = set()
    for policy in ["vllm", *POLICIES]:
        result = simulate(
            coming, trace, cluster(max_running=3), fixed(8, 8), samples=8, policy=policy, seed=5
        )
        totals.add(sum(done.tokens for done in result.completions))
        assert result.counters()["preemptions"] == 0
    assert len(totals) == 1


def test_no_slot_is_idle_while_something_waits():
    trace = questions(2, longest=40)
    names = list(trace)
    burst = [Arrival(f"a{n}", 0.0, names[n % 4], "query", "g", None) for n in range(12)]
    for policy in ["vllm", *POLICIES]:
        result = simulate(
            burst, trace, cluster(max_running=4), fixed(8, 8), samples=8, policy=policy
        )
        counters, tokens = result.counters(), sum(done.tokens for done in result.completions)
        # A request is in the batch for one step a token, and 4 are there until the last few end.
        assert counters["running_mean"] * counters["steps"] == pytest.approx(tokens)
        assert counters["steps"] <= tokens / 4 + 40


def test_same_arguments_same_result():
    trace = questions(4)
    rule = parse_rule("certaindex:0.9")

    def run(seed):
        return simulate(
            arrivals(50, list(trace), seed=2),
            trace,
            cluster(2, max_running=3),
            PerQuery(rule, 2),
            samples=8,
            forecast=Forecast(rule),
            seed=seed,
        )

    assert run(7) == run(7)
    assert run(7).completions != run(8).completions


# Bad input ----------------------------------------------------------------------------------------


def run_with(coming, **arguments):
    trace = arguments.pop("trace", None) or questions()
    replicas = arguments.pop("cluster", None) or cluster()
    return simulate(
        coming, trace, replicas, fixed(2, 1), samples=arguments.pop("samples", 2), **arguments
    )


def test_arrivals_must_be_in_order():
    late, early = (Arrival(name, t, "q0", "chat", "g", None) for name, t in [("l", 9), ("e", 1)])
    with pytest.raises(DataError, match=r"arrival e at 1 s comes after .* sort the workload"):
        run_with([late, early])


def test_a_question_must_be_recorded():
    with pytest.raises(DataError, match="arrival a asks 'nothing', which was not recorded"):
        run_with([Arrival("a", 0.0, "nothing", "chat", "g", None)])


def test_a_budget_above_what_is_recorded_is_refused():
    with pytest.raises(DataError, match="samples = 9: question q0 has only 8 recorded"):
        run_with([], samples=9)
    with pytest.raises(DataError, match="samples = 0"):
        run_with([], samples=0)


def test_an_empty_trace_is_refused():
    with pytest.raises(DataError, match="no finished samples"):
        collect_questions([TraceSample("q", 0, 5, finish_reason="aborted")])


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="nonsense"):
        run_with([], policy="nonsense")


def test_a_sample_larger_than_the_memory_is_refused():
    small = cluster(kv_blocks=1, block_size=4)
    with pytest.raises(EngineError, match=r"needs .* KV blocks and the replica has 1"):
        run_with([Arrival("a", 0.0, "q0", "query", "g", None)], cluster=small)


@pytest.mark.parametrize("sizes", [{"replicas": 0}, {"per_query": -1.0}, {"per_request": -0.1}])
def test_a_cluster_is_checked(sizes):
    with pytest.raises(ValueError, match=next(iter(sizes))):
        Cluster(ReplicaSettings(StepTime(1.0)), **sizes)


def test_a_workload_without_arrivals_has_no_completions():
    assert run_with([]).completions == []


def test_answers_are_given_when_due():
    rows = one([10, 30, 30, 30], ["7", "8", "8", "8"])
    due = [Arrival("a", 0.0, "q", "query", "g", 20.0)]
    rule = parse_rule("fixed:4")
    for when_due in (False, True):
        ended = simulate(due, rows, cluster(), PerQuery(rule, 4), samples=4, when_due=when_due)
        done = ended.completions[0]
        if when_due:
            assert (done.reason, done.samples, done.correct) == ("deadline", 1, True)
            assert done.latency == pytest.approx(19.0)
        else:
            assert (done.reason, done.samples) == ("complete", 4)


def test_without_an_answer_when_due_the_first_one_is_given():
    rows = one([50, 90, 90, 90], ["7", "8", "8", "8"])
    due = [Arrival("a", 0.0, "q", "query", "g", 20.0)]
    allocator = PerQuery(parse_rule("fixed:4"), 4)
    done = simulate(due, rows, cluster(), allocator, samples=4, when_due=True).completions[0]
    assert (done.reason, done.samples) == ("deadline", 1)
    assert 49 <= done.latency <= 52


def test_votes_are_weighed_by_the_recorded_likelihood():
    rows = collect_questions(
        TraceSample("q", i, 10, answer=answer, gold="7", prompt_tokens=5, logprobs=[likelihood])
        for i, (answer, likelihood) in enumerate([("8", -4.0), ("8", -4.0), ("7", -0.1)])
    )
    for weigh, right in ((None, False), (lambda sample: -1 / sample.logprobs[0], True)):
        arrival = [Arrival("a", 0.0, "q", "query", "g", None)]
        program = self_consistency(weigh)
        ended = simulate(arrival, rows, cluster(), fixed(3, 3), samples=3, program=program)
        assert ended.completions[0].correct is right
