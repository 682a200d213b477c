"""An engine with room gets more of a query's samples at once, and gives the places back."""

import asyncio
from contextlib import aclosing

import pytest

from dynasor.config import load_config
from tests.serving.running_server import running
from tests.serving.scripted_engine import ScriptedEngine
from tests.serving.test_served_programs import asked, reasons, rewarded


class Held(ScriptedEngine):
    """Takes requests and has them wait."""

    def __init__(self, say):
        super().__init__(say)
        self.taken = set()
        self.go_on = asyncio.Event()

    async def submit(self, request):
        self.taken.add(request.id)
        try:
            await self.go_on.wait()
            async with aclosing(super().submit(request)) as events:
                async for event in events:
                    yield event
        finally:
            self.taken.discard(request.id)

    async def settled(self):
        """How many it has, once no more come."""
        while not self.taken:
            await asyncio.sleep(0.01)
        before, now = 0, len(self.taken)
        while now > before:
            await asyncio.sleep(0.3)
            before, now = now, len(self.taken)
        return now


@pytest.mark.parametrize(
    ("algorithm", "options", "at_once"),
    [
        ("self-consistency", {}, 16),
        ("best-of-n", {}, 16),
        ("self-consistency", {"wave": 2}, 2),
        ("mcts", {}, 2),
    ],
)
async def test_an_engine_with_room_is_filled(algorithm, options, at_once):
    config = rewarded().model_dump(include={"engine", "server", "algorithm"}, exclude_unset=True)
    allocator = {"fill": 0.25, "wave": 2, "rule": "never"}  # the engine has 64 places
    config = load_config(overrides={**config, "allocator": allocator}, environment={})
    engine = Held(reasons)
    async with running(engine, config=config) as server:
        client = server.openai()

        async def ask(*queries):
            asking = [asyncio.create_task(client.chat.completions.create(**q)) for q in queries]
            settled = await engine.settled()
            engine.go_on.set()
            await asyncio.gather(*asking)
            engine.go_on.clear()
            return settled

        assert await ask(asked(algorithm, **options)) == at_once
        two = await ask(asked(algorithm), asked(algorithm))
        if at_once == 16:
            assert two == 16 + 2, "the second one gets its wave"
        assert await ask(asked(algorithm, **options)) == at_once, "all places are given back"
