"""`dynasor serve`: from a configuration to a server that starts, reloads and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import uvicorn

from certaindex.equivalence import AnswerEquivalence
from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.errors import ConfigError, DynasorError
from dynasor.ranking.scorer import ranking
from dynasor.vote_weights import weigher
from serving.app import create_app, reconfigure, with_front_door
from serving.evidence_file import evidence_file, kept
from serving.front_door import is_loopback
from serving.keys import Keys, load_keys
from serving.logs import configure
from serving.program_settings import why_not

logger = logging.getLogger(__name__)

READERS = 512
"""Most threads that read answers, one for each query: a hostile answer may hold one for seconds."""
COMPARERS = 2
"""Processes that compare answers; the second starts when the first is busy."""
CUT_GRACE = 5.0
"""Seconds that clients have to take their best answers so far after the drain."""


def keys_of(config: Config) -> Keys:
    """The keys of a server, which must have some if others can reach it.

    Raises:
        ConfigError: if it would serve anybody beyond this machine and was not told so twice.
    """
    server = config.server
    keys = load_keys(None if server.keys is None else Path(server.keys), os.environ)
    if not keys and not is_loopback(server.host) and not server.allow_public_without_keys:
        raise ConfigError(
            f"server.host = {server.host!r} can be reached from other machines, and there are no "
            "API keys: give server.keys (see `dynasor key`), or set "
            "server.allow_public_without_keys if anybody may ask"
        )
    return keys


def check_efforts(config: Config) -> None:
    """See that what the levels of effort mean can be served.

    Raises:
        ConfigError: naming the level whose algorithm cannot.
    """
    for level, effort in config.server.effort.items():
        reason = why_not(config, effort.algorithm)
        if effort.algorithm == "agentwrite":
            reason = "each request must say how long its text shall be"
        if reason is not None:
            raise ConfigError(
                f"server.effort.{level}.algorithm = {effort.algorithm!r} cannot be served: {reason}"
            )


def checked(config: Config) -> Keys:
    """The keys of a configuration that can be served.

    Raises:
        ConfigError: if it cannot be.
    """
    if config.engine.kind == "replay":
        raise ConfigError(
            "engine.kind = 'replay': a trace answers only its own questions; serve vllm or openai"
        )
    keys = keys_of(config)
    weigher(config)
    check_efforts(config)
    return keys


def run_server(config: Config, reload: Callable[[], Config]) -> None:
    """Serve until SIGTERM or Ctrl-C; SIGHUP reads the configuration anew.

    Args:
        config: to begin with.
        reload: reads it again.

    Raises:
        ConfigError: if the configuration cannot be served.
        EngineError: if the engine does not start.
    """
    keys = checked(config)  # before a model is loaded for it
    door = listen(config.server.host, config.server.port)
    give_up_after(door, config.server.stalled)
    configure()
    # uvicorn's loop, which is the fast one where that is installed.
    with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
        runner.run(_serve(config, keys, reload, door))


def listen(host: str, port: int) -> socket.socket:
    """A socket to listen on.

    Raises:
        ConfigError: if it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"server.host = {host!r}, server.port = {port}: cannot listen there: {error.strerror}"
        ) from None


def give_up_after(listening: socket.socket, stalled: float) -> None:
    """Have the system close connections whose client takes no more data for so many seconds.

    The front door frees what such a client holds (`serving.front_door`), but what was already handed to
    its connection would else keep that open for as long as the client likes. Connections get the option
    from the socket that they came in at (tcp(7)); systems that do not know it go without.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        longest = (1 << 31) - 1
        listening.setsockopt(socket.IPPROTO_TCP, option, min(longest, ceil(1000 * stalled)))


async def _serve(
    config: Config, keys: Keys, reload: Callable[[], Config], listening: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(min(READERS, config.server.max_queries), "reader"))
    with (
        AnswerEquivalence(workers=COMPARERS) as equivalence,
        ranking(config.ranking) as scorer,
        evidence_file(config.slo.watch.file) as file,
    ):
        found = None if file is None else file.found
        app = create_app(config, keys, equivalence, os.environ, scorer=scorer, kept=found)
        door = with_front_door(app, config, keys)
        engine = app.state.service.engine
        server = _Server(
            uvicorn.Config(
                door,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=round(config.server.drain + CUT_GRACE),
            )
        )

        def end() -> None:
            if door.draining:  # told twice
                app.state.service.conclude()
            door.draining = app.state.draining = True
            app.state.service.audits.drop()
            server.should_exit = True
            loop.call_later(config.server.drain, app.state.service.conclude)

        def read_again() -> None:
            try:
                new = reload()
                check_efforts(new)
                fixed = reconfigure(app, door, new, keys_of(new))
            except DynasorError as error:
                logger.error("the configuration stays as it was: %s", error)
                return
            give_up_after(listening, new.server.stalled)
            logger.info("new configuration")
            if fixed:
                logger.warning("these need a new start: %s", ", ".join(fixed))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, read_again)
        serving = asyncio.create_task(server.serve([listening]))
        async with kept(file, lambda: app.state.service.promises.kept()):
            try:
                await _start(engine, serving)
                if not serving.done():
                    where = f"http://{config.server.host}:{listening.getsockname()[1]}"
                    logger.info("ready: %s on %s/v1", app.state.service.served, where)
                await serving
            finally:
                server.should_exit = True
                await asyncio.gather(serving, return_exceptions=True)
                await app.state.service.audits.close()
                await engine.close()


async def _start(engine: Engine, serving: asyncio.Task[None]) -> None:
    """Start the engine while the server already says that it lives."""
    starting = asyncio.create_task(engine.start())
    await asyncio.wait({starting, serving}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # told to end before it was ready
        starting.cancel()
    await asyncio.gather(starting, return_exceptions=serving.done())


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours are there."""
        yield
