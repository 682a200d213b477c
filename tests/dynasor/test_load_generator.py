"""The load generator in its own process."""

import asyncio

import pytest

from dynasor.bench.load_generator import LoadGenerator
from dynasor.errors import EngineError


async def test_it_sends_in_order_and_stamps_from_the_due_time():
    times = [0.0, 0.1, 0.1, 0.3]
    sent, latencies = [], {}
    async with LoadGenerator(times) as generator:
        async for event in generator.events():
            if "send" in event:
                sent.append(event["send"])
                asyncio.get_running_loop().call_later(0.2, generator.answered, event["send"])
            else:
                latencies[event["done"]] = event["latency"]
                if len(latencies) == len(times):
                    generator.finish()
        report = generator.report()
    assert sent == [0, 1, 2, 3]
    assert sorted(latencies) == sent
    assert min(latencies.values()) >= 0.2 - 0.001
    assert 0 <= report.lateness_p99 <= report.lateness_most
    assert report.cpu_share > 0


async def test_a_slow_answer_does_not_delay_the_traffic():
    sent = []
    async with LoadGenerator([0.0, 0.05, 0.1]) as generator:
        async for event in generator.events():
            sent.append(event["send"])  # nothing is ever answered
            if len(sent) == 3:
                generator.finish()
    assert sent == [0, 1, 2]


async def test_its_death_is_an_error():
    async with LoadGenerator([0.0, 60.0]) as generator:
        events = generator.events()
        assert await anext(events) == {"send": 0}
        generator._process.kill()
        with pytest.raises(EngineError, match="load generator ended"):
            await anext(events)
