"""A query as a stream of chunks: news of the work while it thinks, text as it comes, then the end.

A reasoning query tells its progress in chunks whose choice says nothing, with `dynasor` beside it:
clients that do not know the field see an empty delta. When the answer is decided, the text of the
chosen solution follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from time import monotonic

from serving.answer_shapes import Piece, Shape, choices_of
from serving.api_errors import ApiError
from serving.front_door import Visit
from serving.live_query import LiveQuery
from serving.openai_responses import DONE, PING, event
from serving.query_service import QueryService, failure_of
from serving.reasoning_plan import Plan

PING_EVERY = 10.0
NEWS_EVERY = 0.1
"""Seconds between two progress events, at least."""


async def chunks(
    service: QueryService, plan: Plan, visit: Visit, shape: Shape, *, usage: bool
) -> AsyncGenerator[bytes, None]:
    """The whole stream of a query, begun and ended here.

    Args:
        service: runs it.
        plan: what is asked.
        visit: of the client.
        shape: of the endpoint.
        usage: whether the last chunk has the usage.
    """
    async with service.running(plan, visit) as query:
        for chunk in shape.opening(query):
            yield event(chunk)
        parts = _plain(query, shape) if plan.plain else _reasoning(query, shape)
        async for part in parts:
            yield part
        failure = failure_of(query)
        if failure is not None:
            yield event(failure.body)
            return
        for index, choice in enumerate(choices_of(query)):
            end = shape.end(query, index, choice.finish_reason)
            yield event({**end, "dynasor": query.report().model_dump()})
        if usage:
            yield event(shape.usage(query))
        yield DONE


async def _plain(query: LiveQuery, shape: Shape) -> AsyncIterator[bytes]:
    """The texts as they grow."""
    sent = [0] * query.plan.samples
    told = [0] * query.plan.samples  # tokens whose log-probabilities were sent
    async for part in _until_over(query):
        parts = [part]
        for index, choice in enumerate(query.choices):
            if choice is not None and len(choice.text) > sent[index]:
                scored = choice.scored[told[index] :]
                new = Piece(choice.text[sent[index] :], sent[index], scored)
                parts.append(event(shape.piece(query, index, new)))
                sent[index], told[index] = len(choice.text), told[index] + len(scored)
        if any(parts):
            yield b"".join(parts)


async def _reasoning(query: LiveQuery, shape: Shape) -> AsyncIterator[bytes]:
    """How the votes stand, and at the end the chosen text."""
    last = 0.0
    async for part in _until_over(query):
        if part:
            yield part
        elif not query.over.is_set() and monotonic() - last >= NEWS_EVERY:
            last = monotonic()
            progress = query.report().model_dump()
            yield event({**shape.piece(query, 0, Piece("")), "dynasor": progress})
    if not isinstance(failure_of(query), ApiError) and (text := query.chosen_text()):
        yield event(shape.piece(query, 0, Piece(text)))


async def _until_over(query: LiveQuery) -> AsyncIterator[bytes]:
    """An empty part at each news up to the end, a ping in a long silence."""
    while True:
        over = query.over.is_set()
        query.news.clear()
        yield b""
        if over:
            return
        try:
            async with asyncio.timeout(PING_EVERY):
                await query.news.wait()
        except TimeoutError:
            yield PING
