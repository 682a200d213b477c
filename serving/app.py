"""The server's application: routes, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from certaindex.equivalence import AnswerEquivalence
from dynasor.config import Config
from dynasor.engines.build import build_engine
from dynasor.ranking.scorer import LengthScorer
from dynasor.slo.kept_evidence import KeptEvidence
from serving import answer_routes, api_errors, live_page, operations
from serving.engine_guard import EngineGuard
from serving.front_door import FrontDoor, is_loopback
from serving.keys import Keys
from serving.metrics import Metrics
from serving.promises import Promises, load_calibration
from serving.query_service import QueryService
from serving.tracing import tracer_of


def create_app(
    config: Config,
    keys: Keys,
    equivalence: AnswerEquivalence,
    environment: Mapping[str, str],
    guard: EngineGuard | None = None,
    scorer: LengthScorer | None = None,
    kept: KeptEvidence | None = None,
) -> FastAPI:
    """The application; its engine is `app.state.service.engine`, which the caller starts and closes.

    Args:
        config: of the server.
        keys: who may ask.
        equivalence: groups answers.
        environment: says where traces go.
        guard: the engine; by default built from the configuration.
        scorer: ranks queries by their prompt, or None.
        kept: what an earlier server knew of its promises, or None.

    Raises:
        DynasorError: if what `[slo]` names cannot be read or contradicts it.
    """
    app = FastAPI(
        title="Dynasor",
        description="Answers that stop when they are certain, for any client of OpenAI's API.",
        # The pages of the framework load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    metrics = Metrics()
    tracer = tracer_of(environment)
    if guard is None:
        guard = EngineGuard(
            lambda: build_engine(config.engine, config.algorithm.seed, config.scheduler),
            tracer,
            recovered=metrics.recovered,
        )
    if scorer is not None:
        scorer.observe = metrics.rank_seconds.observe
    promises = Promises(config, load_calibration(config), kept=kept)
    service = QueryService(guard, config, equivalence, metrics, tracer, promises, scorer)
    app.state.service, app.state.metrics = service, metrics
    metrics.slo = config.server.slo
    app.include_router(answer_routes.router)
    app.include_router(operations.router)
    app.include_router(live_page.router)
    app.add_exception_handler(api_errors.ApiError, api_errors.answer_api_error)
    app.add_exception_handler(HTTPException, api_errors.answer_http_error)
    app.add_exception_handler(RequestValidationError, api_errors.answer_validation_error)
    app.add_exception_handler(Exception, api_errors.answer_unexpected)
    return app


def with_front_door(app: FastAPI, config: Config, keys: Keys) -> FrontDoor:
    """The application behind its front door."""
    server = config.server
    return FrontDoor(
        app,
        keys=keys,
        max_queries=server.max_queries,
        max_body=server.max_body,
        stalled=server.stalled,
        local=is_loopback(server.host),
        metrics=app.state.metrics,
    )


def reconfigure(app: FastAPI, door: FrontDoor, config: Config, keys: Keys) -> list[str]:
    """Take a new configuration for the queries to come; names of settings that need a new start.

    The watch over a class begins anew if its promise, its calibration or its program has changed.

    Raises:
        DynasorError: if what `[slo]` names cannot be read or contradicts it; nothing is changed then.
    """
    service: QueryService = app.state.service
    old = service.config
    calibration = load_calibration(config)
    algorithm = config.algorithm.model_copy(update={"reward": old.algorithm.reward})
    update: dict[str, Any] = {
        "engine": old.engine,
        "scheduler": old.scheduler,
        "algorithm": algorithm,
    }
    new = config.model_copy(update=update)
    promises = Promises(new, calibration, before=service.promises)
    if calibration != service.promises.calibration or any(
        getattr(old, section) != getattr(new, section)
        for section in ("slo", "algorithm", "allocator")
    ):
        service.promises = promises
    fixed: list[str] = []
    for section in ("engine", "scheduler"):
        if getattr(old, section) != getattr(config, section):
            fixed.append(section)
    fixed += [
        f"server.{name}"
        for name in ("host", "port", "allow_public_without_keys", "drain")
        if getattr(old.server, name) != getattr(config.server, name)
    ]
    if old.algorithm.reward != config.algorithm.reward:
        fixed.append("algorithm.reward")
    if old.slo.watch.file != config.slo.watch.file:
        fixed.append("slo.watch.file")
    service.config = new
    app.state.metrics.slo = config.server.slo
    door.max_queries, door.max_body = config.server.max_queries, config.server.max_body
    door.stalled, door.keys = config.server.stalled, keys
    return fixed
