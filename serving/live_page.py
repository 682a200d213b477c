"""The live page: one static file, and a stream of what the server is doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from serving.event_stream import EventStream
from serving.openai_responses import event
from serving.operations import gather_gauges
from serving.query_service import QueryService

router = APIRouter()
EVERY = 0.5
"""Seconds between two pictures."""
SHOWN = 100
"""Queries on a picture, those that run first."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> HTMLResponse:
    """The page."""
    content = (files("serving") / "page" / "index.html").read_text(encoding="utf-8")
    headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
    return HTMLResponse(content, headers=headers)


@router.get("/events", response_class=Response, include_in_schema=False)
async def events(request: Request) -> Response:
    """A picture of the server twice a second, until it is about to end."""
    return EventStream(_pictures(request))


async def _pictures(request: Request) -> AsyncGenerator[bytes, None]:
    while not getattr(request.app.state, "draining", False):
        yield event(await picture(request))
        await asyncio.sleep(EVERY)


async def picture(request: Request) -> dict[str, Any]:
    """What the page shows."""
    service: QueryService = request.app.state.service
    metrics = request.app.state.metrics
    counted = await gather_gauges(request)
    live = list(service.live.values())
    ended = list(service.ended)[::-1]
    return {
        "model": service.served,
        "ready": service.guard.ready,
        "restarts": service.guard.restarts,
        "gangs": len(live),
        "requests": service.guard.running,
        "waiting": counted.get("waiting"),
        "kv": counted.get("kv_now"),
        "starvation": round(service.longest_wait(), 1),
        "attainment": metrics.attained,
        "slo": metrics.slo,
        "alarms": service.promises.alarms,
        "classes": {
            name: {"level": status.level, "predicted": status.predicted}
            for name, status in service.promises.statuses().items()
        },
        "saved": metrics.saved_total,
        "spent": metrics.spent_total,
        "queries": [query.as_shown() for query in [*live, *ended][:SHOWN]],
    }
