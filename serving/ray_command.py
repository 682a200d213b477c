"""`dynasor serve --replicas N` and `dynasor deploy`: from a configuration to an application on Ray."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

from dynasor.config import Config
from dynasor.errors import ConfigError
from dynasor.vote_weights import weigher
from serving import ray_app
from serving.keys import Keys
from serving.logs import configure
from serving.server import keys_of, listen

logger = logging.getLogger(__name__)


def serve_here(config: Config) -> None:
    """Serve with several engines on this machine until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: if the configuration cannot be served.
        EngineError: if the engines do not start.
    """
    keys = _checked(config)
    listen(config.server.host, config.server.port).close()  # a port in use is better found now
    configure()
    told = threading.Event()

    def end(*_: Any) -> None:
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        ray_app.deploy(config, keys, None)
        where = f"http://{config.server.host}:{config.server.port}/v1"
        logger.info("ready: %d engines behind %s", config.cluster.min_replicas, where)
        while not told.wait(1.0):
            pass
    finally:
        ray_app.end()


def deploy_to(config: Config, address: str, *, remove: bool) -> None:
    """Put the application on a cluster, or take it off.

    Raises:
        ConfigError: if the configuration cannot be served.
        EngineError: if there is no cluster, or it does not serve.
    """
    configure()
    if remove:
        ray_app.remove(config, address)
        logger.info("%s was removed", config.cluster.name)
        return
    ray_app.deploy(config, _checked(config), address)
    logger.info("%s serves on port %d of the cluster", config.cluster.name, config.server.port)


def _checked(config: Config) -> Keys:
    """The keys of a configuration that can be served."""
    if config.engine.kind == "replay":
        raise ConfigError(
            "engine.kind = 'replay': a trace answers only its own questions; serve vllm or openai"
        )
    weigher(config)
    return keys_of(config)
