"""`[slo.watch] file`: what the server knows of its promises, kept on the disk while it serves."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from dynasor.errors import ConfigError, DataError
from dynasor.slo.kept_evidence import KeptEvidence

logger = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two looks whether there is something new to write: what a `kill -9` loses at most."""


class EvidenceFile:
    """One file, of one server.

    Attributes:
        found: what an earlier server left, or None.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found = self._read()
        self._written = self.found
        self._fails = False

    def _read(self) -> KeptEvidence | None:
        """What is there; something else is put aside."""
        try:
            return KeptEvidence.load(self._path)
        except FileNotFoundError:
            return None
        except DataError as error:
            aside = self._path.with_name(self._path.name + ".bad")
            with suppress(OSError):
                os.replace(self._path, aside)
            logger.warning(
                "slo.watch.file = %s is not what a server left (%s): the watch begins anew, and it is "
                "now %s",
                self._path,
                error,
                aside.name,
            )
            return None

    def save(self, known: KeptEvidence) -> None:
        """Write what is known, if it is new. A full disk is told once, and tried again."""
        if known == self._written:
            return
        try:
            known.save(self._path)
        except OSError as error:
            if not self._fails:
                logger.warning(
                    "slo.watch.file = %s cannot be written (%s): what is learned from now on is lost if "
                    "the server ends before it can be",
                    self._path,
                    error.strerror,
                )
            self._fails = True
            return
        if self._fails:
            logger.info("slo.watch.file = %s is written again", self._path)
        self._written, self._fails = known, False


@contextmanager
def evidence_file(path: str | None) -> Iterator[EvidenceFile | None]:
    """The file, held so that no other server takes it; None where none is set.

    Raises:
        ConfigError: if another server holds it, or it cannot be written.
    """
    if path is None:
        yield None
        return
    with ExitStack() as on_exit:
        try:
            # Not the file itself, which is replaced.
            lock = on_exit.enter_context(Path(path + ".lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"slo.watch.file = {path!r}: another server has it; give each a file of its own"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"slo.watch.file = {path!r}: cannot be written ({error.strerror}); check the path"
            ) from None
        yield EvidenceFile(Path(path))


@asynccontextmanager
async def kept(
    file: EvidenceFile | None, known: Callable[[], KeptEvidence], every: float = EVERY
) -> AsyncIterator[None]:
    """Write what is known again and again, and at the end.

    Args:
        file: where to; None for nowhere.
        known: says what is.
        every: seconds.
    """
    if file is None:
        yield
        return
    ended = asyncio.Event()

    async def write() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await ended.wait()
            await asyncio.to_thread(file.save, known())

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        ended.set()
        await writing
        # What became known while the last file was written is not in it.
        await asyncio.to_thread(file.save, known())
