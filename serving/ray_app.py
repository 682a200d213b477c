"""The server on Ray Serve: endpoints, engine replicas, a rank predictor, and the view of all of them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import (
    AutoscalingConfig,
    AutoscalingPolicy,
    HTTPOptions,
    RequestRouterConfig,
)
from ray.serve.exceptions import RayServeException
from starlette.types import Receive, Scope, Send

from certaindex.equivalence import AnswerEquivalence
from dynasor.config import NO_RANKING, Config, load_config
from dynasor.engines.ray_replica import EngineReplica
from dynasor.engines.ray_serve import RayServeEngine
from dynasor.errors import EngineError
from dynasor.ranking.scorer import LengthScorer, load_ranking
from serving.admission_share import GlobalView
from serving.app import create_app, with_front_door
from serving.engine_guard import EngineGuard
from serving.keys import Keys
from serving.logs import configure
from serving.server import COMPARERS, READERS, checked
from serving.tracing import tracer_of

logger = logging.getLogger(__name__)

REPORT_EVERY = 1.0
"""Seconds between two reports of an endpoint to the global view."""
REPORT_WITHIN = 0.5
"""Seconds that a report may take; no query waits for it in any case."""
CALLS = 100_000
"""Calls that a replica takes at once: the engine has a queue of its own, which knows gangs."""
NAMESPACE = "dynasor"
VIEW = "global-view"
SLACK = 60.0
"""Seconds that Serve's proxy waits for an answer beyond the deadline of every query."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Engines that load models leave a small machine little time for Serve's proxy to begin.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # The processes of an engine end with the replica that began them, however that ends.
    "RAY_process_group_cleanup_enabled": "1",
}
"""Of a cluster that is begun here; set any of them to have it otherwise."""
ERROR = 500  # characters of an error that are shown


class RankReplica:
    """Scores prompts; Serve gathers those of all endpoints into batches.

    Args:
        settings: the whole configuration.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        ranking = Config.model_validate(settings).ranking
        self._ranker, _ = load_ranking(ranking.model)
        self.score.set_max_batch_size(ranking.batch)
        self.score.set_batch_wait_timeout_s(ranking.window)

    @serve.batch  # type: ignore[untyped-decorator]
    async def score(self, prompts: list[str]) -> list[float]:
        """One score a prompt."""
        scores = await asyncio.to_thread(self._ranker.score, prompts)
        return [float(score) for score in scores]


class RemoteRanker:
    """A ranker that asks the deployment of `RankReplica`; called on the scorer's thread.

    Args:
        handle: of the deployment.
        name: of the ranker.
        deadline: seconds after which its score is of no use.
    """

    def __init__(self, handle: Any, name: str, deadline: float) -> None:
        self._handle = handle
        self._name = name
        self._deadline = deadline

    @property
    def name(self) -> str:
        """What it is."""
        return self._name

    def score(self, prompts: Any) -> NDArray[np.float64]:
        """One score a prompt."""
        calls = [self._handle.score.remote(prompt) for prompt in prompts]
        return np.array([call.result(timeout_s=self._deadline) for call in calls])


class Endpoint:
    """The front door, the routes and the runtime in a process of Serve's, behind Serve's proxy.

    Args:
        settings: the whole configuration.
        keys: who may ask.
        engine: handle of the engine replicas.
        ranker: handle of the rank predictor, or None.
    """

    def __init__(
        self, settings: Mapping[str, Any], keys: Keys, engine: Any, ranker: Any = None
    ) -> None:
        self._config = Config.model_validate(settings)
        self._keys = keys
        self._engine = engine
        self._ranker = ranker
        self._on_exit = ExitStack()
        self._reporting: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> Any:
        """What Serve calls for each connection and for the begin and the end."""

        async def serve_connection(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve(scope, receive, send)

        return serve_connection  # uvicorn takes no bound method for ASGI 3

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._door(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._end()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        configure()
        readers = min(READERS, self._config.server.max_queries)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(readers, "reader"))
        equivalence = self._on_exit.enter_context(AnswerEquivalence(workers=COMPARERS))
        guard = EngineGuard(lambda: RayServeEngine(self._engine), tracer_of(os.environ))
        app = create_app(self._config, self._keys, equivalence, os.environ, guard, self._scorer())
        self._door = with_front_door(app, self._config, self._keys)
        self._guard, self._service = guard, app.state.service
        await self._service.engine.start()
        self._reporting = asyncio.create_task(self._report())

    def _scorer(self) -> LengthScorer | None:
        ranking = self._config.ranking
        if self._ranker is None:
            return None
        ranker, calibration = load_ranking(ranking.model)
        scorer = LengthScorer(
            RemoteRanker(self._ranker, ranker.name, ranking.deadline),
            calibration,
            deadline=ranking.deadline,
            window=ranking.window,
            batch=ranking.batch,
        )
        self._on_exit.callback(scorer.close)
        return scorer

    async def _end(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        self._service.audits.drop()
        self._service.conclude()
        await self._service.engine.close()
        self._on_exit.close()

    async def _report(self) -> None:
        """Tell the global view what is here and learn this endpoint's share, again and again."""
        me = serve.get_replica_context().replica_id.unique_id
        view: Any = None
        known = True
        while True:
            engine = self._guard.engine
            expected = engine.expected() if isinstance(engine, RayServeEngine) else 0.0
            try:
                if view is None:
                    view = await asyncio.to_thread(global_view, self._config)
                async with asyncio.timeout(REPORT_WITHIN):
                    self._door.max_queries = await view.report.remote(
                        me, len(self._service.live), expected
                    )
                known = True
            except (RayError, TimeoutError, ValueError) as error:
                view = None  # what it said last holds until there is one again
                if known:
                    problem = str(error).split("\n")[0][:ERROR] or type(error).__name__
                    logger.warning("no news of the global view: %s", problem)
                known = False
            await asyncio.sleep(REPORT_EVERY)


def global_view(config: Config) -> Any:
    """The actor that knows all endpoints; made where there is none. Ray starts it anew if it dies."""
    return (
        ray.remote(GlobalView)
        .options(
            name=f"{config.cluster.name}-{VIEW}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            num_cpus=0,
        )
        .remote(config.server.max_queries, config.cluster.max_expected_tokens)
    )


def application(config: Config, keys: Keys) -> Any:
    """All deployments, bound together."""
    settings = config.model_dump(mode="json")
    drain = config.server.drain
    engine = serve.deployment(EngineReplica).options(**_engine_options(config)).bind(settings)
    ranker = None
    if config.ranking.model != NO_RANKING:
        ranker = serve.deployment(RankReplica).options(max_ongoing_requests=CALLS).bind(settings)
    endpoint = serve.deployment(serve.ingress()(Endpoint)).options(
        name="Endpoint",
        num_replicas=config.cluster.endpoints,
        max_ongoing_requests=CALLS,
        graceful_shutdown_timeout_s=drain,
        ray_actor_options={"num_cpus": 0},
    )
    return endpoint.bind(settings, keys, engine, ranker)


def _engine_options(config: Config) -> dict[str, Any]:
    """How Serve runs the engine replicas."""
    cluster, health = config.cluster, config.engine.health_every
    options: dict[str, Any] = {
        "max_ongoing_requests": CALLS,
        "health_check_period_s": health,
        "health_check_timeout_s": health,
        "graceful_shutdown_timeout_s": config.server.drain,
        "graceful_shutdown_wait_loop_s": 0.5,
        "ray_actor_options": {"num_cpus": cluster.replica_cpus, "num_gpus": _gpus(config)},
        "request_router_config": RequestRouterConfig(
            request_router_class="dynasor.engines.ray_router:GangRouter",
            request_router_kwargs={"places": config.engine.max_running},
        ),
    }
    if cluster.min_replicas == cluster.most:
        return {**options, "num_replicas": cluster.min_replicas}
    return {
        **options,
        "autoscaling_config": AutoscalingConfig(
            min_replicas=cluster.min_replicas,
            max_replicas=cluster.most,
            upscale_delay_s=cluster.scale_up_after,
            downscale_delay_s=cluster.scale_down_after,
            metrics_interval_s=1.0,
            look_back_period_s=5.0,
            policy=AutoscalingPolicy(
                policy_function="dynasor.engines.ray_replica:ScaleByExpectedTokens",
                policy_kwargs={"tokens_a_replica": cluster.tokens_a_replica},
            ),
        ),
    }


def _gpus(config: Config) -> int:
    """GPUs of a replica: vLLM's own arithmetic; none where the engine is not here or runs on the CPU."""
    from dynasor.engines.vllm import is_installed

    if config.engine.kind != "vllm" or not is_installed("vllm"):
        return 0
    return config.engine.tensor_parallel * config.engine.pipeline_parallel


def build(arguments: Mapping[str, str]) -> Any:
    """The application for Serve's own tools (`serve deploy`, KubeRay): names a configuration file.

    Args:
        arguments: `config`, the path of a TOML file that is there on every node.

    Raises:
        ConfigError: if it cannot be served.
    """
    config = load_config(Path(arguments["config"]))
    return application(config, checked(config))


def deploy(config: Config, keys: Keys, address: str | None) -> None:
    """Put the application on a cluster, or on one that is begun on this machine for it.

    Returns once it serves.

    Args:
        config: of all of it.
        keys: who may ask.
        address: of the cluster, `auto` for the one that this machine belongs to; None begins one.

    Raises:
        EngineError: if there is no cluster, or the replicas do not start.
    """
    cluster, server = config.cluster, config.server
    own: dict[str, Any] = {}
    if address is None:
        # Its cores are ours to count: replicas share what there is.
        needed = 2 + cluster.most * max(1.0, cluster.replica_cpus)
        own = {"num_cpus": int(max(os.cpu_count() or 1, needed)), "include_dashboard": False}
    with _connected(address or "local", **own):
        http = HTTPOptions(
            host=server.host, port=server.port, request_timeout_s=server.max_seconds + SLACK
        )
        serve.start(http_options=http)
        serve.run(application(config, keys), name=cluster.name)


def remove(config: Config, address: str) -> None:
    """Take the application off a cluster; what runs has the time of the drain.

    Raises:
        EngineError: if there is no cluster.
    """
    with _connected(address):
        serve.delete(config.cluster.name)
        with suppress(ValueError):  # there is none
            ray.kill(ray.get_actor(f"{config.cluster.name}-{VIEW}", namespace=NAMESPACE))


@contextmanager
def _connected(address: str, **own: Any) -> Iterator[None]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, **own)
        yield
    except (RayError, RayServeException, ConnectionError, RuntimeError) as error:
        problem = " ".join(str(error).split())[-ERROR:]
        raise EngineError(f"Ray at {address!r} cannot serve it: {problem}") from error


def end() -> None:
    """End the cluster that `deploy` began on this machine."""
    serve.shutdown()
    ray.shutdown()
