"""Ranks of prompts while an engine runs: in batches, off the event loop, never late.

One thread scores what has gathered while a short window was open, so that many queries that come at once
cost one call of the ranker. A thread and not a process: NumPy, LightGBM and torch let the event loop run
meanwhile, plain Python takes turns with it, and a process would hold the model a second time. A prompt
that is not scored by its deadline goes unranked, and so does one that the ranker fails on: both are
counted, and neither keeps a query waiting any longer. Scores that come late are kept for the next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter
from typing import NamedTuple

from dynasor.config import NO_RANKING, RankingConfig
from dynasor.errors import DataError
from dynasor.ranking.length_calibration import CALIBRATION, LengthCalibration
from dynasor.ranking.model_folder import SHIPPED, load_ranker
from dynasor.ranking.ranked import Ranked, ranked_by
from dynasor.ranking.ranker import Ranker

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Prompts that wait for the thread; more go unranked at once."""
_CLOSING = 5.0  # seconds that a batch under way has to end


@dataclass(slots=True)
class ScorerCounters:
    """What became of the prompts.

    Attributes:
        scored: by the ranker in time.
        cached: answered from the cache.
        late: unranked, for the deadline had passed or too many waited.
        failed: unranked, for the ranker failed or gave no finite score.
        seconds: that the ranker took.
    """

    scored: int = 0
    cached: int = 0
    late: int = 0
    failed: int = 0
    seconds: float = 0.0


def load_ranking(name: str) -> tuple[Ranker, LengthCalibration]:
    """A ranker, and what its scores say about tokens.

    Args:
        name: of a ranker that comes with the package, or the folder of a trained one.

    Raises:
        DataError: if there is none, or it is corrupt, or was never calibrated.
        MissingExtra: if a package is not there.
    """
    ranker = load_ranker(name)
    path = SHIPPED.get(name, Path(name)) / CALIBRATION
    if not path.is_file():
        raise DataError(
            f"ranking.model = {name!r}: {path} is missing, so its scores say nothing about tokens; "
            "train the ranker again, or choose another"
        )
    return ranker, LengthCalibration.load(path)


@contextmanager
def ranking(settings: RankingConfig) -> Iterator[LengthScorer | None]:
    """The scorer that the `[ranking]` section asks for, None for none; closed at the end.

    Raises:
        DataError, MissingExtra: see `load_ranking`.
    """
    if settings.model == NO_RANKING:
        yield None
        return
    scorer = LengthScorer(
        *load_ranking(settings.model),
        deadline=settings.deadline,
        window=settings.window,
        batch=settings.batch,
    )
    try:
        yield scorer
    finally:
        scorer.close()


class _Waiting(NamedTuple):
    key: bytes
    prompt: str
    result: asyncio.Future[Ranked | None]


class LengthScorer:
    """See the module. One event loop owns it; `close` ends its thread.

    Args:
        ranker: scores; called from one thread only.
        calibration: what its scores say about tokens.
        deadline: seconds after which a prompt goes unranked.
        window: seconds in which prompts gather, once the first has come.
        batch: prompts at once.
        cached: prompts whose rank is kept.
    """

    def __init__(
        self,
        ranker: Ranker,
        calibration: LengthCalibration,
        *,
        deadline: float = 0.05,
        window: float = 0.002,
        batch: int = 64,
        cached: int = 10_000,
    ) -> None:
        if not 0 <= window < deadline or batch < 1 or cached < 0:
            raise ValueError(
                "window must be 0 s or more, deadline above that, batch 1 or more and cached 0 or "
                f"more, not {window}, {deadline}, {batch} and {cached}"
            )
        self.counters = ScorerCounters()
        self.observe: Callable[[float], None] = lambda seconds: None
        """Told the seconds that each prompt waited for its rank."""
        self._ranker = ranker
        self._calibration = calibration
        self._deadline = deadline
        self._window = window
        self._batch = batch
        self._cached = cached
        self._cache: OrderedDict[bytes, Ranked] = OrderedDict()
        self._waiting: dict[bytes, asyncio.Future[Ranked | None]] = {}
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._closed = False
        self._told = False

    async def rank(self, prompt: str) -> Ranked | None:
        """What the ranker says of a prompt; None if it goes unranked. Never raises for a prompt."""
        start = perf_counter()
        found = await self._rank(prompt)
        self.observe(perf_counter() - start)
        return found

    async def _rank(self, prompt: str) -> Ranked | None:
        key = blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            self.counters.cached += 1
            return known
        result = self._waiting.get(key)
        if result is None:
            if self._closed or len(self._waiting) >= MOST_WAITING:
                self.counters.late += 1
                return None
            result = self._enqueue(key, prompt)
        done, _ = await asyncio.wait([result], timeout=self._deadline)
        if not done:
            self.counters.late += 1
            return None
        found = result.result()
        if found is None:
            self.counters.failed += 1
        else:
            self.counters.scored += 1
        return found

    def close(self) -> None:
        """End the thread once the batch under way is done; prompts that wait go unranked."""
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSING)
            if self._thread.is_alive():
                logger.warning("%s still scores; its thread is left to itself", self._ranker.name)
            self._thread = None

    def _enqueue(self, key: bytes, prompt: str) -> asyncio.Future[Ranked | None]:
        if self._thread is None:
            # As a daemon, so that a ranker that hangs does not keep the process from ending.
            self._thread = Thread(target=self._serve, name="length-scorer", daemon=True)
            self._thread.start()
        result = asyncio.get_running_loop().create_future()
        self._waiting[key] = result
        self._queue.put(_Waiting(key, prompt, result))
        return result

    def _settle(self, batch: Sequence[_Waiting], found: Sequence[Ranked | None]) -> None:
        """Scores have come, in time or late; on the event loop."""
        for each, ranked in zip(batch, found, strict=True):
            del self._waiting[each.key]
            if not each.result.done():
                each.result.set_result(ranked)
            if ranked is not None and self._cached:
                self._cache[each.key] = ranked
                if len(self._cache) > self._cached:
                    self._cache.popitem(last=False)

    # On the thread ------------------------------------------------------------------------------

    def _serve(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            if batch:
                start = perf_counter()
                found = self._score([each.prompt for each in batch])
                self.counters.seconds += perf_counter() - start
                try:
                    batch[0].result.get_loop().call_soon_threadsafe(self._settle, batch, found)
                except RuntimeError:  # the loop was closed; nobody waits any more
                    return

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """What has come when the window closes, and whether to go on after it."""
        batch: list[_Waiting] = []
        end = 0.0
        while len(batch) < self._batch:
            try:
                each = self._queue.get(timeout=max(0.0, end - perf_counter()) if batch else None)
            except Empty:
                break
            if each is None:
                return batch, False
            if not batch:
                end = perf_counter() + self._window
            batch.append(each)
        return batch, True

    def _score(self, prompts: list[str]) -> list[Ranked | None]:
        try:
            found = ranked_by(self._ranker, self._calibration, prompts)
        except Exception as error:  # a ranker may raise whatever its parts raise
            if len(prompts) > 1:  # perhaps one prompt is odd; it shall not unrank the others
                return [self._score([prompt])[0] for prompt in prompts]
            self._tell(f"{type(error).__name__}: {error}")
            return [None]
        if None in found:
            self._tell("a score is not finite")
        return found

    def _tell(self, problem: str) -> None:
        """Log the first failure."""
        if not self._told:
            self._told = True
            logger.warning(
                "%s cannot rank some prompts, which go unranked (%s)", self._ranker.name, problem
            )
