"""The endpoint on a real Ray cluster, for tests that were written for one in their own process."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dynasor.config import Config
from serving.keys import Keys
from tests.serving.relayed_engine import Relay, ScriptedReplica
from tests.serving.running_server import Reachable, settings

IDLE_WITHIN = 30.0


@dataclass
class OnRay(Reachable):
    """A server whose endpoint and replicas are processes of Ray's."""

    engine: Any

    async def idle(self) -> None:
        """Wait until nothing is left of any query."""
        admin = {"Authorization": f"Bearer {self.admin}"}
        until = monotonic() + IDLE_WITHIN
        async with self.http(headers=admin) as http:
            while (left := await _busy(http)) or self.engine.running:
                assert monotonic() < until, f"left: {left}, {self.engine.running}"
                await asyncio.sleep(0.05)


async def _busy(http: Any) -> dict[str, float]:
    """What an endpoint still has."""
    text = (await http.get("/metrics")).text
    now = {family.name: family for family in text_string_to_metric_families(text)}
    names = ("dynasor_gangs_running", "dynasor_requests_running")
    return {name: sample.value for name in names for sample in now[name].samples if sample.value}


class RayServer:
    """One cluster, with one application that is deployed anew where a test needs it otherwise."""

    def __init__(self, replicas: int = 2) -> None:
        self._replicas = replicas
        self._relay = Relay()
        self._deployed: Any = None
        self._environment = dict(os.environ)

    async def start(self) -> None:
        import ray
        from ray import serve
        from ray.serve.config import HTTPOptions

        from serving.ray_app import ENVIRONMENT

        os.environ.update(ENVIRONMENT)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._relayed = await self._relay.start()
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        await asyncio.to_thread(
            serve.start, http_options=HTTPOptions(host="127.0.0.1", port=self._port)
        )

    @asynccontextmanager
    async def running(
        self, engine: Any, keys: Keys | None = None, config: Config | None = None
    ) -> AsyncIterator[OnRay]:
        """As `running_server.running`: serve a scripted engine, which stays in this process."""
        self._relay.engine = engine
        await self._deploy(config or settings(), keys or Keys([]), engine)
        server = OnRay(f"http://127.0.0.1:{self._port}", engine)
        try:
            yield server
        finally:
            await server.close()

    async def _deploy(self, config: Config, keys: Keys, engine: Any) -> None:
        from ray import serve

        from serving.ray_app import application
        from serving.ray_endpoint import LEARN_EVERY

        wanted = (config, keys if len(keys) else None, engine.capacity())
        if wanted == self._deployed:
            return
        relayed = config.engine.model_copy(
            update={"base_urls": (f"http://127.0.0.1:{self._relayed}/v1",)}  # for `ScriptedReplica`
        )
        config = config.model_copy(
            update={
                "engine": relayed,
                "server": config.server.model_copy(update={"drain": 2.0}),
                "cluster": config.cluster.model_copy(
                    update={"min_replicas": self._replicas, "replica_cpus": 0.1}
                ),
            }
        )
        # Replicas ask the relay, in this loop, while they are awaited.
        await asyncio.to_thread(
            serve.run, application(config, keys, ScriptedReplica), name=config.cluster.name
        )
        if self._deployed is not None and (
            self._deployed[2] != wanted[2]
            or self._deployed[0].server.max_queries != config.server.max_queries
        ):
            # It may have asked a replica that has gone, and shares its limit with one that ends.
            await asyncio.sleep(3 * LEARN_EVERY)
        self._deployed = wanted

    def logs(self) -> str:
        """What all processes of the cluster have logged."""
        from ray._private.worker import global_worker

        folder = Path(global_worker.node.get_logs_dir_path())
        files = [file for file in folder.rglob("*") if file.is_file()]
        return "\n".join(file.read_text(errors="replace") for file in files)

    async def close(self) -> None:
        import ray
        from ray import serve

        await asyncio.to_thread(serve.shutdown)
        ray.shutdown()
        await self._relay.close()
        os.environ.clear()
        os.environ.update(self._environment)
