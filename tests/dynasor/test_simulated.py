"""The simulated replica: exact times by hand, and the jumps against going token by token."""

import random
from dataclasses import replace
from math import inf
from unittest.mock import patch

import pytest
from hypothesis import given, settings, strategies

from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.simulated import Replica
from dynasor.engines.simulated_job import Job
from dynasor.engines.step_time import StepTime
from dynasor.errors import EngineError
from dynasor.scheduling.arrival_queue import ArrivalQueue
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.policies import parse_policy
from dynasor.scheduling.queue import GangQueue
from tests.dynasor.naive_replica import NaiveReplica

ONE_SECOND = StepTime(1.0)


def fifo(clock):
    return ArrivalQueue()


def by(policy):
    return lambda clock: GangQueue(parse_policy(policy), clock)


def replica(queue=fifo, **sizes):
    return Replica(ReplicaSettings(sizes.pop("step_time", ONE_SECOND), **sizes), queue)


def serve(machine, submits, aborts=()):
    """Drive a replica: submits (time, job, hints), aborts (time, job); ends and cut tokens by name."""
    inputs = sorted(
        [(time, n, job, hints) for n, (time, job, hints) in enumerate(submits)]
        + [(time, 1_000_000 + n, job, None) for n, (time, job) in enumerate(aborts)],
        key=lambda row: row[:2],
    )
    ends, cut, reports = {}, {}, []
    while inputs or machine.due < inf:
        if inputs and inputs[0][0] <= machine.due:
            time, number, job, hints = inputs.pop(0)
            if number < 1_000_000:
                machine.submit(job, time, hints)
            else:
                cut[job.name] = machine.abort(job, time)
            continue
        now = machine.due
        for report in machine.advance():
            reports.append((now, report.job.name, report.tokens))
            if report.finished:
                ends[report.job.name] = now
        machine.schedule()
    return ends, cut, reports


def job(name, prompt=10, output=10, gang="g", prefix=None, **more):
    return Job(name, gang, prefix or f"prompt of {name}", prompt, output, **more)


# By hand ------------------------------------------------------------------------------------------


def test_two_slots_three_requests():
    machine = replica(max_running=2)
    jobs = [job("a", output=5), job("b", output=3), job("c", output=4)]
    ends, _, _ = serve(machine, [(0, each, None) for each in jobs])
    # One step computes the prompt and the first token, each further one a token; c follows b.
    assert ends == {"a": 5, "b": 3, "c": 7}
    assert [each.first_token for each in jobs] == [1, 1, 4]
    assert machine.counters.steps == 7
    assert machine.counters.running_sum == 5 * 2 + 2 * 1


def test_each_term_of_the_step_time_counts():
    time = StepTime(1.0, per_request=0.1, per_prefill_token=0.01, per_context_token=0.001)
    machine = replica(step_time=time)
    ends, _, _ = serve(machine, [(0, job("a", prompt=20, output=3), None)])
    prompt = 1 + 0.01 * 20 + 0.001 * 20
    decode = [1 + 0.1 + 0.001 * 21, 1 + 0.1 + 0.001 * 22]
    assert ends["a"] == pytest.approx(prompt + sum(decode))


def test_a_request_that_comes_during_a_step_waits_for_its_end():
    ends, _, _ = serve(replica(), [(0, job("a", output=9), None), (2.5, job("b", output=2), None)])
    assert ends == {"b": 5, "a": 9}


def test_a_long_prompt_is_computed_in_parts_beside_the_others():
    machine = replica(max_batched_tokens=8)
    ends, _, _ = serve(
        machine,
        [(0, job("a", prompt=4, output=6), None), (0.5, job("b", prompt=20, output=1), None)],
    )
    # Each step has 7 tokens left beside a's: 7 + 7 + 6.
    assert ends == {"b": 4, "a": 6}


def test_siblings_share_the_full_blocks_of_their_prompt():
    machine = replica(block_size=16, kv_blocks=10)
    siblings = [job(name, prompt=40, output=1, prefix="p") for name in "abc"]
    serve(machine, [(0, each, None) for each in siblings])
    assert [each.cached for each in siblings] == [0, 32, 32]
    assert machine.counters.kv_peak == pytest.approx((2 + 3) / 10)
    late = job("d", prompt=40, output=1, prefix="p")
    serve(machine, [(5, late, None)])
    assert late.cached == 32  # nobody has overwritten it
    assert machine.free_blocks == 10


def test_preemption_takes_the_last_and_computes_it_anew():
    machine = replica(block_size=4, kv_blocks=4)
    a, b = job("a", prompt=4, output=8), job("b", prompt=4, output=6)
    ends, _, _ = serve(machine, [(0, a, None), (0, b, None)])
    # After 5 steps both hold 8 tokens in 2 blocks each; in step 6 both need a third.
    assert machine.counters.preemptions == 1
    assert machine.counters.recomputed_tokens == 8
    # a takes the last of b's blocks in step 6, has its 8 tokens after step 8; b, which had 5 of 6,
    # needs 9 tokens in the cache and comes back in step 9.
    assert ends == {"a": 8, "b": 9}
    assert machine.free_blocks == 4


def test_a_preempted_request_finds_again_what_was_not_overwritten():
    machine = replica(block_size=4, kv_blocks=4, step_time=StepTime(1.0, per_prefill_token=1.0))
    a, b = job("a", prompt=4, output=8), job("b", prompt=4, output=6)
    ends, _, _ = serve(machine, [(0, a, None), (0, b, None)])
    # 8 + 1 s for both prompts, 7 s for a's decoding; b's first block of 4 is still there: 5 tokens.
    assert ends == {"a": 9 + 7, "b": 9 + 7 + 1 + 5}


def test_an_abort_frees_the_place_at_the_end_of_the_step():
    machine = replica(max_running=1)
    a, b = job("a", output=100), job("b", output=2)
    ends, cut, _ = serve(machine, [(0, a, None), (0.1, b, None)], [(7.5, a)])
    assert cut == {"a": 7}  # the eighth token is still on its way
    assert ends == {"b": 10}  # from 8: prompt, one more token
    assert machine.free_blocks == 1 << 20
    assert machine.running == machine.waiting == 0


def test_an_aborted_request_that_waits_never_runs():
    machine = replica(max_running=1)
    a, b = job("a", output=10), job("b", output=10)
    ends, cut, _ = serve(machine, [(0, a, None), (0, b, None)], [(3.5, b)])
    assert cut == {"b": 0}
    assert ends == {"a": 10}
    assert machine.counters.steps == 10


def test_reports_come_every_so_many_tokens_and_at_the_end():
    _, _, reports = serve(replica(), [(0, job("a", output=7, report_every=3), None)])
    assert reports == [(3, "a", 3), (6, "a", 6), (7, "a", 7)]


def test_the_policy_decides_who_is_admitted():
    long, short = job("l", output=9, gang="long"), job("s", output=2, gang="short")
    running = job("r", output=3, gang="first")
    submits = [(0, running, None), (0.1, long, Hints(tokens=90)), (0.2, short, Hints(tokens=20))]
    ends, _, _ = serve(replica(by("gang-srpt"), max_running=1), submits)
    assert ends == {"r": 3, "s": 5, "l": 14}


def test_the_victim_comes_from_the_gang_that_is_ranked_last():
    # Short came first and would be spared by vLLM; long is ranked behind it though it came before.
    sizes = {"block_size": 4, "kv_blocks": 4}
    long, short = job("l", 4, 8, gang="long"), job("s", 4, 8, gang="short")
    submits = [(0, long, Hints(tokens=80)), (0.5, short, Hints(tokens=20))]
    machine = replica(by("gang-srpt"), **sizes)
    ends, _, _ = serve(machine, submits)
    assert machine.counters.preemptions == 1
    assert ends["s"] < ends["l"]
    again = [job("l", 4, 8, gang="long"), job("s", 4, 8, gang="short")]
    ends, _, _ = serve(replica(fifo, **sizes), [(0, again[0], None), (0.5, again[1], None)])
    assert ends["l"] < ends["s"]


def test_what_cannot_fit_is_refused():
    with pytest.raises(EngineError, match="needs 7 KV blocks and the replica has 6"):
        replica(block_size=16, kv_blocks=6).submit(job("a", prompt=50, output=51), 0.0)


@pytest.mark.parametrize("size", ["max_running", "max_batched_tokens", "kv_blocks", "block_size"])
def test_sizes_are_checked(size):
    with pytest.raises(ValueError, match=f"{size} must be 1 or more, not 0"):
        ReplicaSettings(ONE_SECOND, **{size: 0})


def test_a_request_waits_until_the_batch_is_expected_to_fit():
    def run(fit_memory):
        machine = replica(by("gang-fcfs"), block_size=1, kv_blocks=30, fit_memory=fit_memory)
        jobs = [job(name, prompt=2, output=10, gang=name) for name in "abc"]
        return serve(machine, [(0, each, None) for each in jobs])[0], machine.counters

    # Nothing has ended: a request is thought to take 100 tokens. Then it is known to take 10, and two
    # of 12 fit in 30 blocks.
    ends, counters = run(True)
    assert ends == {"a": 10, "b": 20, "c": 20}
    assert counters.preemptions == 0
    ends, counters = run(False)
    assert ends["c"] > 10
    assert counters.preemptions > 0


# Against the reference -----------------------------------------------------------------------------


def workload(seed):
    """A small replica under pressure: settings, submits (time, spec), aborts (time, name)."""
    draw = random.Random(seed)
    size = draw.choice([1, 2, 4, 5])
    longest = draw.choice([8, 40])
    time = StepTime(0.7 + draw.random(), draw.random() / 9, draw.random() / 50, draw.random() / 500)
    need = -(-(12 + longest) // size)
    sizes = ReplicaSettings(
        time,
        max_running=draw.randint(1, 6),
        max_batched_tokens=draw.choice([3, 7, 16, 100]),
        kv_blocks=need + draw.randint(0, 3 * need),
        block_size=size,
    )
    submits, aborts = [], []
    now = 0.0
    for gang in range(draw.randint(1, 6)):
        now += draw.expovariate(0.05)
        prompt = draw.randint(1, 12)
        for member in range(draw.randint(1, 4)):
            name = f"{gang}/{member}"
            came = now + (0 if draw.random() < 0.7 else draw.expovariate(0.1))
            output = draw.randint(1, longest)
            submits.append((came, (name, f"g{gang}", f"p{gang}", prompt, output)))
            if draw.random() < 0.2:
                aborts.append((came + draw.expovariate(0.04), name))
    return sizes, sorted(submits, key=lambda row: row[0]), aborts


@pytest.mark.parametrize("policy", ["vllm", "gang-fcfs", "fcfs"])
@settings(max_examples=200, deadline=None)
@given(seed=strategies.integers(0, 2**32))
def test_jumps_equal_going_token_by_token(policy, seed):
    """When an idle gang is forgotten is left out, and tested with the queue.

    The reference tells the queue of a step's ends before it tells of what came during the step.
    """
    sizes, submits, aborts = workload(seed)
    queue = None if policy == "vllm" else by(policy)
    with patch("dynasor.scheduling.queue.LAPSE", inf):
        naive = NaiveReplica(sizes, queue)
        expected = naive.serve(submits, aborts)
        machine = Replica(sizes, queue or fifo)
        jobs = {spec[0]: Job(*spec) for _, spec in submits}
        ends, _, _ = serve(
            machine,
            [(time, jobs[spec[0]], None) for time, spec in submits],
            [(time, jobs[name]) for time, name in aborts],
        )
    whole = {name: each.end for name, each in expected.items() if each.end is not None}
    assert ends == pytest.approx(whole)
    for name, each in expected.items():
        assert jobs[name].generated == each.generated
        assert jobs[name].cached == each.cached
        assert jobs[name].first_token == pytest.approx(each.first_token)
    counters = machine.counters
    assert (counters.steps, counters.preemptions) == (naive.steps, naive.preemptions)
    assert counters.recomputed_tokens == naive.lost
    assert machine.free_blocks == sizes.kv_blocks == len(naive.pool.free)


@settings(max_examples=100, deadline=None)
@given(seed=strategies.integers(0, 2**32))
def test_looking_ahead_in_memory_loses_nothing(seed):
    sizes, submits, aborts = workload(seed)
    machine = Replica(replace(sizes, fit_memory=True), by("gang-fcfs"))
    jobs = {spec[0]: Job(*spec) for _, spec in submits}
    ends, cut, _ = serve(
        machine,
        [(time, jobs[spec[0]], None) for time, spec in submits],
        [(time, jobs[name]) for time, name in aborts],
    )
    assert set(ends) | set(cut) == set(jobs)
    assert all(jobs[name].generated == jobs[name].output for name in ends)
    assert (machine.running, machine.waiting, machine.free_blocks) == (0, 0, sizes.kv_blocks)
