"""What tests ask of the engine for OpenAI-compatible servers."""

from algorithms.program import Request, Sampling


def ask(id="q#0", program="q", report_every=None, prompt=None, prefix="", **sampling):
    prompt = prompt or ({"role": "user", "content": "what?"},)
    return Request(
        id, program, prompt, Sampling(**sampling), prefix=prefix, report_every=report_every
    )


async def end_of(engine, request=None):
    return [event async for event in engine.submit(request or ask())][-1]
