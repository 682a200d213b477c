"""Hostile answers of one query, which keep a worker busy, and the other queries of the server."""

import asyncio
from contextlib import contextmanager

from tests.serving.running_server import MODEL, QUESTION, running
from tests.serving.scripted_engine import ScriptedEngine

ROOTS = ("\\boxed{\\sqrt{8}}", "\\boxed{2\\sqrt{2}}")
BODY = {
    "model": f"{MODEL}:self-consistency",
    "messages": QUESTION,
    "extra_body": {"dynasor": {"stop": {"rule": "fixed:4"}, "budget": {"samples": 4}}},
}


@contextmanager
def held(server):
    """A worker that compares somebody's hostile answer all the while."""
    workers = server.equivalence._workers
    seat = workers.take()
    try:
        yield
    finally:
        workers.give_back(seat)


async def test_workers_that_others_hold_cost_a_query_one_deadline_and_no_more():
    engine = ScriptedEngine(lambda request: ROOTS[request.index % 2])
    async with running(engine) as server:
        client = server.openai()
        with held(server):
            with held(server):
                server.equivalence.deadline = 0.2
                late = await client.chat.completions.create(**BODY)
            server.equivalence.deadline = 20.0
            same = await asyncio.gather(*(client.chat.completions.create(**BODY) for _ in "123"))
    assert late.dynasor["votes"] == {"\\sqrt{8}": 2, "2\\sqrt{2}": 2}  # by the cheap rules
    for answer in same:  # though one worker was held all the time
        assert list(answer.dynasor["votes"].values()) == [4]


async def test_a_query_that_has_used_up_its_time_is_compared_by_the_cheap_rules(monkeypatch):
    monkeypatch.setattr("certaindex.equivalence_share.WORK_SECONDS", 0.0)
    engine = ScriptedEngine(lambda request: ROOTS[request.index % 2])
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(**BODY)
        assert server.equivalence.worker_pid is None
    assert list(answer.dynasor["votes"].values()) == [2, 2]
