"""Recorded questions, arrivals and replicas for tests in virtual time."""

import random

from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import collect_questions
from dynasor.bench.simulation import Cluster
from dynasor.bench.workload import Arrival
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.step_time import StepTime
from dynasor.traces import TraceSample


def questions(seed=0, count=4, samples=8, longest=60):
    draw = random.Random(seed)
    return collect_questions(
        TraceSample(
            f"q{number}",
            index,
            draw.randint(1, longest),
            answer=draw.choice(["7", "7", "8", None]),
            gold="7",
            prompt_tokens=20,
        )
        for number in range(count)
        for index in range(samples)
    )


def arrivals(count, names, rate=0.05, seed=0, deadline=None):
    draw = random.Random(seed)
    time = 0.0
    for number in range(count):
        time += draw.expovariate(rate)
        kind = "chat" if draw.random() < 0.2 else "query"
        yield Arrival(f"a{number}", time, draw.choice(names), kind, "group", deadline)


def cluster(replicas=1, time=None, overhead=0.0, **sizes):
    replica = ReplicaSettings(time or StepTime(1.0), **sizes)
    return Cluster(replica, replicas, per_query=overhead, per_request=overhead)


def fixed(samples, wave):
    return PerQuery(parse_rule(f"fixed:{samples}"), wave)


def one(tokens, answers):
    rows = [
        TraceSample("q", i, n, answer=a, gold="7", prompt_tokens=5)
        for i, (n, a) in enumerate(zip(tokens, answers, strict=True))
    ]
    return collect_questions(rows)
