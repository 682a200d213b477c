"""The server on Ray Serve: endpoints, engine replicas, a rank predictor, and the view of all of them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import ray
from ray import serve
from ray._private.services import canonicalize_bootstrap_address_or_die
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

logger = logging.getLogger(__name__)

ENDPOINT_CPUS = 0.01
"""Cores that an endpoint reserves: few, but not none, so that it is not put on a head without cores."""
CALLS = 100_000
"""Calls that a replica takes at once: the engine has a queue of its own, which knows gangs."""
SLACK = 60.0
"""Seconds that Serve's proxy waits for an answer beyond the deadline of every query."""
REACHED_WITHIN = 5.0
"""Seconds that the address of a cluster has to answer; Ray itself would try for a minute."""
TOLD_EVERY = 5.0
"""Seconds between two looks at a deployment that has not yet begun."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Engines that load models leave a small machine little time for Serve's proxy to begin.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Ray would have its workers give way to whatever else runs on the machine (nice 15).
    "RAY_worker_niceness": "0",
    # Answers by Ray's own streams would stop an endpoint, from when a proxy dies together with the head
    # until the head is back: Ray waits in the endpoint's event loop for a reader that is gone.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    # What a question or an answer may be is `server.max_body`'s and the engine's to say.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    # The processes of an engine end with the replica that began them, however that ends.
    "RAY_process_group_cleanup_enabled": "1",
}
"""Of a cluster that is begun here; set any of them to have it otherwise."""


def application(config: Config, keys: Keys, replica: type[EngineReplica] = EngineReplica) -> Any:
    """All deployments, bound together.

    Args:
        config: of all of it.
        keys: who may ask.
        replica: runs the engine; tests have engines of their own.

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
    engine = serve.deployment(replica).options(**_engine_options(config)).bind(settings)
    ranker = None
    if config.ranking.model != NO_RANKING:
        ranker = serve.deployment(RankReplica).options(max_ongoing_requests=CALLS).bind(settings)
    endpoint = serve.deployment(serve.ingress()(Endpoint)).options(
        name="Endpoint",
        num_replicas=config.cluster.endpoints,
        max_ongoing_requests=CALLS,
        graceful_shutdown_timeout_s=drain,
        max_surge_percent=100,  # those of a new version begin before the old ones end
        ray_actor_options={"num_cpus": ENDPOINT_CPUS},
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

    Returns once it serves; until then the log tells how far it is.

    Args:
        config: of all of it.
        keys: who may ask.
        address: of the cluster, `auto` for the one that this machine belongs to; None begins one.

    Raises:
        ConfigError: if the address is none.
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
        with _progress_told(cluster.name):
            serve.start(http_options=http)
            serve.run(application(config, keys), name=cluster.name)


@contextmanager
def _progress_told(name: str) -> Iterator[None]:
    """Log how far an application is: models take long to load, and a cluster may lack what they need."""
    over = Event()

    def watch() -> None:
        told = ""
        while not over.wait(TOLD_EVERY):
            with suppress(RayError, RayServeException):
                now = progress(serve.status().applications.get(name))
                if now != told:
                    logger.info("%s", now)
                told = now

    Thread(target=watch, name="progress", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def progress(status: Any) -> str:
    """How far an application is, and what Serve says that it waits for.

    Args:
        status: Serve's `ApplicationStatusOverview`, or None where there is none yet.
    """
    if status is None:
        return "starting Serve"
    parts = []
    for name, deployment in status.deployments.items():
        counts = [f"{count} {state.lower()}" for state, count in deployment.replica_states.items()]
        why = " ".join(deployment.message.split())[-ERROR:]
        parts.append(f"{name}: {', '.join(counts) or 'none yet'}" + (f" ({why})" if why else ""))
    return "; ".join(parts) or "starting"


def remove(config: Config, address: str) -> None:
    """Take the application off a cluster; what runs has the time of the drain.

    Raises:
        ConfigError: if the address is none.
        EngineError: if there is no cluster, or nothing of that name on it.
    """
    name = config.cluster.name
    with _connected(address):
        there = serve.status().applications
        if name not in there:
            raise EngineError(
                f"there is no application {name!r} on this cluster (cluster.name); there are: "
                f"{', '.join(there) or 'none'}"
            )
        drain(config)
        serve.delete(name, _blocking=False)
        deadline = monotonic() + config.server.drain + SLACK
        while name in serve.status().applications:
            if monotonic() > deadline:
                raise EngineError(f"{name} is still ending after {config.server.drain + SLACK:g} s")
            sleep(0.5)
        with suppress(ValueError):  # there is none
            ray.kill(ray.get_actor(f"{name}-{VIEW}", namespace=NAMESPACE))


@contextmanager
def _connected(address: str, **own: Any) -> Iterator[None]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        if (
            address == "auto"
        ):  # Ray keeps the address of a cluster that is gone, and tries it for long
            address = str(canonicalize_bootstrap_address_or_die(address))
        if address != "local":
            _check_answers(address)
        _join(address, own)
        yield
    except (RayError, RayServeException, ConnectionError, RuntimeError, TimeoutError) as error:
        problem = " ".join(str(error).split())[-ERROR:]
        raise EngineError(f"Ray at {address!r} cannot serve it: {problem}") from error


def _join(address: str, own: Mapping[str, Any]) -> None:
    """Be a part of the cluster.

    Raises:
        RuntimeError: if that cannot be.
    """
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, **own)
    except Exception as error:  # Ray raises bare ones, as where a node does not start in time
        # Of what joins a cluster by its address Ray does not ask for a token by itself.
        token = address != "local" and "RAY_AUTH_MODE" not in os.environ
        hint = "; if it asks for a token, set RAY_AUTH_MODE=token" if token else ""
        raise RuntimeError(str(error) + hint) from error


def _check_answers(address: str) -> None:
    """See that somebody is there.

    Raises:
        ConfigError: if it is no address.
        EngineError: if nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"--address = {address!r}: give `auto` on a machine of the cluster, or HOST:PORT as "
            "`ray start --head` tells it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED_WITHIN).close()
    except OSError as error:
        problem = error.strerror or str(error)
        raise EngineError(f"no Ray cluster answers at {address!r}: {problem}") from None


def drain(config: Config) -> None:
    """Have all endpoints end what they have: within the time of the drain, then with the best so far.

    Serve by itself would take the engines away from queries that still need them.
    """
    seconds = config.server.drain
    try:
        asked = serve.get_app_handle(config.cluster.name).broadcast("drain", seconds)
        asked.results(timeout_s=seconds + SLACK, return_exceptions=True)
    except (RayError, RayServeException, TimeoutError) as error:
        logger.warning("the endpoints were not drained: %s", " ".join(str(error).split())[-ERROR:])


def end() -> None:
    """End the cluster that `deploy` began on this machine."""
    if ray.is_initialized():  # else Serve would look for a cluster, and end what it finds there
        serve.shutdown()
        ray.shutdown()
