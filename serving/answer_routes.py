"""`POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.answer_shapes import ChatShape, Shape, TextShape
from serving.answer_stream import chunks
from serving.api_errors import DOCUMENTED, ApiError, json_response
from serving.event_stream import EventStream, until_left
from serving.front_door import Visit
from serving.openai_protocol import ChatRequest, CompletionRequest
from serving.openai_responses import ChatCompletion, Model, ModelList, TextCompletion
from serving.program_settings import servable
from serving.query_service import QueryService, failure_of
from serving.reasoning_plan import plan_of

router = APIRouter()
_STARTED = int(time.time())


@router.get("/v1/models", response_model=ModelList)
async def models(request: Request) -> dict[str, Any]:
    """The model, plain and with each algorithm that this server can serve."""
    service = _service(request)
    served = service.served
    algorithms = [name for name in servable(service.config) if name != "none"]
    names = [served, *(f"{served}:{name}" for name in algorithms)]
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": _STARTED, "owned_by": "dynasor"}
            for name in names
        ],
    }


@router.get("/v1/models/{name:path}", response_model=Model, responses={404: DOCUMENTED[404]})
async def model(name: str, request: Request) -> dict[str, Any]:
    """One of them."""
    for known in (await models(request))["data"]:
        if known["id"] == name:
            return dict(known)
    raise ApiError(404, f"no model {name[:100]!r}", param="model", code="model_not_found")


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=DOCUMENTED)
async def chat(asked: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    return await _answer(asked, request, ChatShape())


@router.post("/v1/completions", response_model=TextCompletion, responses=DOCUMENTED)
async def complete(asked: CompletionRequest, request: Request) -> Response:
    """Go on with a text."""
    return await _answer(asked, request, TextShape())


def _service(request: Request) -> QueryService:
    service: QueryService = request.app.state.service
    return service


async def _answer(
    asked: ChatRequest | CompletionRequest, request: Request, shape: Shape
) -> Response:
    service = _service(request)
    visit: Visit = request.scope["visit"]
    plan = plan_of(asked, service.config, service.served, visit.key.max_priority)
    await service.check(plan)
    plan = service.admit(plan)
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return EventStream(chunks(service, plan, visit, shape, usage=usage))
    async with service.running(plan, visit) as query:
        left = asyncio.create_task(until_left(request.receive))
        over = asyncio.create_task(query.over.wait())
        try:
            await asyncio.wait({left, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            over.cancel()
        if not query.over.is_set():
            return Response(status_code=499)  # nobody reads it
    if (failure := failure_of(query)) is not None:
        raise failure
    return json_response(shape.whole(query))
