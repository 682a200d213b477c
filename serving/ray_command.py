"""`dynasor serve --replicas N` and `dynasor deploy`: from a configuration to an application on Ray."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

from dynasor.config import Config
from serving import ray_app
from serving.logs import configure
from serving.server import checked, listen

logger = logging.getLogger(__name__)


def serve_here(config: Config) -> None:
    """Serve with several engines on this machine until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: if the configuration cannot be served.
        EngineError: if the engines do not start.
    """
    keys = checked(config)
    free = listen(config.server.host, config.server.port)  # a port in use is better found now
    server = config.server.model_copy(update={"port": free.getsockname()[1]})
    free.close()
    config = config.model_copy(update={"server": server})
    configure()
    told = threading.Event()

    def end(*_: Any) -> None:
        if told.is_set():  # told twice
            raise KeyboardInterrupt
        told.set()

    try:
        logger.info("starting Ray and %d engines", config.cluster.min_replicas)
        ray_app.deploy(config, keys, None)
        for number in (signal.SIGTERM, signal.SIGINT):  # now, for Ray has set its own
            signal.signal(number, end)
        where = f"http://{server.host}:{server.port}"
        logger.info("ready: %d engines on %s/v1", config.cluster.min_replicas, where)
        while not told.wait(1.0):
            pass
        logger.info("ending: open queries have %g s", server.drain)
        ray_app.drain(config)
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
    ray_app.deploy(config, checked(config), address)
    logger.info("%s serves on port %d of the cluster", config.cluster.name, config.server.port)
