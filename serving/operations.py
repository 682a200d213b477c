"""For those who run the server: is it alive, is it ready, how does it do."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.metrics import Metrics
from serving.query_service import QueryService

router = APIRouter()


@router.get("/healthz")
async def alive(request: Request) -> dict[str, str]:
    """The server answers; whether an alarm says that a promise does not hold."""
    alarms = _service(request).promises.alarms
    return {"status": "alive", "promises": "alarm" if alarms else "no alarm"}


@router.get("/readyz", responses={503: {"description": "not ready"}})
async def ready(request: Request) -> JSONResponse:
    """The engine serves, and the server is not about to end."""
    if not _service(request).guard.ready:
        return JSONResponse({"status": "engine starting"}, 503)
    if getattr(request.app.state, "draining", False):
        return JSONResponse({"status": "draining"}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/slo")
async def promises(request: Request) -> JSONResponse:
    """How each class of queries does against what it was promised."""
    statuses = _service(request).promises.statuses()
    return JSONResponse({name: asdict(status) for name, status in statuses.items()})


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus."""
    await gather_gauges(request)
    counters: Metrics = request.app.state.metrics
    return Response(counters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def gather_gauges(request: Request) -> dict[str, float]:
    """Bring the gauges up to date; what the engine's scheduler counts."""
    service, metrics = _service(request), request.app.state.metrics
    counted = await service.guard.counters()
    metrics.running.set(len(service.live))
    metrics.requests.set(service.guard.running)
    metrics.waiting.set(counted.get("waiting", 0.0))
    metrics.kv.set(counted.get("kv_now", 0.0))
    metrics.prefixes.set(
        counted.get("prefix_hits", 0.0) / max(counted.get("prefix_queries", 0.0), 1.0)
    )
    metrics.starvation.set(service.longest_wait())
    metrics.ready.set(float(service.guard.ready))
    metrics.promises.update(service.promises.statuses())
    return counted


def _service(request: Request) -> QueryService:
    service: QueryService = request.app.state.service
    return service
