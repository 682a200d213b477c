"""The server on Ray Serve: endpoints, engine replicas, a rank predictor, and the view of all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import (
    AutoscalingConfig,
    AutoscalingPolicy,
    HTTPOptions,
    RequestRouterConfig,
)
from ray.serve.exceptions import RayServeException

from dynasor.config import NO_RANKING, Config, load_config
from dynasor.engines.ray_replica import EngineReplica
from dynasor.errors import ConfigError, EngineError
from serving.keys import Keys
from serving.ray_endpoint import ERROR, NAMESPACE, VIEW, Endpoint
from serving.ray_ranks import RankReplica
from serving.server import checked

CALLS = 100_000
"""Calls that a replica takes at once: the engine has a queue of its own, which knows gangs."""
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


def application(config: Config, keys: Keys) -> Any:
    """All deployments, bound together.

    Raises:
        ConfigError: if evidence shall be kept in a file, which belongs to one process.
    """
    if config.slo.watch.file is not None:
        raise ConfigError(
            f"slo.watch.file = {config.slo.watch.file!r}: on Ray each endpoint watches its own queries, "
            "and a file is for one; leave it out"
        )
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
