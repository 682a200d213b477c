"""From a configuration to an engine."""

from __future__ import annotations

import os
from pathlib import Path

from dynasor.config import EMBEDDED, EngineConfig, SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.engines.base import Engine
from dynasor.errors import ConfigError

EMBEDDED_KV_GIB = 1


def build_engine(
    config: EngineConfig, seed: int | None = None, scheduler: SchedulerConfig | None = None
) -> Engine:
    """The engine that the configuration names, not yet started.

    Args:
        config: the `[engine]` section.
        seed: order in which `replay` plays each query's samples; the file's order if None.
        scheduler: the `[scheduler]` section; the engine's own order if None.

    Raises:
        ConfigError: if the kind of engine needs a setting that is missing.
    """
    if config.kind == "openai":
        from dynasor.engines.openai import OpenAIEngine

        if not config.base_urls:
            raise ConfigError(
                "engine.base_urls is empty: the openai engine needs at least one, "
                "such as --base-url http://localhost:8000/v1"
            )
        return OpenAIEngine(
            config.base_urls,
            model=None if config.model == EMBEDDED else config.model,
            api_key=os.environ.get(config.api_key_env),
            max_running=config.max_running,
            timeout=config.timeout,
            retries=config.retries,
            scheduler=scheduler,
            gang_hints=config.gang_hints,
            health_every=config.health_every,
        )
    if config.kind == "replay":
        from dynasor.engines.replay import ReplayEngine

        if config.traces is None:
            raise ConfigError("engine.traces is not set: the replay engine needs a trace file")
        return ReplayEngine(
            Path(config.traces),
            tokens_per_second=config.tokens_per_second,
            max_running=config.max_running,
            shuffle=seed,
        )
    from dynasor.engines.vllm import VLLMEngine

    embedded = config.model == EMBEDDED
    return VLLMEngine(
        str(embedded_model()) if embedded else config.model,
        max_running=config.max_running,
        max_model_len=config.max_model_len,
        kv_gib=config.kv_gib or (EMBEDDED_KV_GIB if embedded else None),
        kv_blocks=config.kv_blocks,
        tensor_parallel=config.tensor_parallel,
        pipeline_parallel=config.pipeline_parallel,
        tune_cpu=config.tune_cpu,
        scheduler=scheduler,
    )
