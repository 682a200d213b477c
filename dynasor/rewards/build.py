"""From a configuration to a reward model."""

from __future__ import annotations

import os

from dynasor import embedded_model
from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.errors import ConfigError
from dynasor.programs import algorithm_of
from dynasor.rewards.base import RewardModel


def with_rewards(config: Config, engine: Engine) -> Engine:
    """The engine; where the program asks for rewards, one that also scores.

    Raises:
        ConfigError: if it does and no reward model is set.
    """
    if not algorithm_of(config).scored:
        return engine
    from dynasor.rewards.engine import RewardedEngine

    return RewardedEngine(engine, build_reward(config), batch=config.algorithm.reward.batch)


def has_reward(config: Config) -> bool:
    """Whether a reward model is set, or the model is the embedded one, which has its own."""
    return config.algorithm.reward.kind is not None or config.is_embedded


def build_reward(config: Config) -> RewardModel:
    """The reward model that `[algorithm.reward]` names, not yet started.

    Raises:
        ConfigError: if a setting that it needs is missing.
    """
    settings = config.algorithm.reward
    kind = settings.kind or ("embedded" if config.is_embedded else None)
    if kind == "embedded":
        from dynasor.rewards.slips import SlipReward

        return SlipReward(embedded_model.path(), embedded_model.reward_path())
    if kind == "server":
        from dynasor.rewards.endpoint import EndpointReward

        if settings.base_url is None:
            raise ConfigError("algorithm.reward.base_url is not set: kind = 'server' needs it")
        key = os.environ.get(settings.api_key_env)
        return EndpointReward(
            settings.base_url, model=settings.model, api_key=key, timeout=settings.timeout
        )
    if kind is None:
        raise ConfigError(
            f"algorithm.name = {config.algorithm.name!r} needs a reward model: set "
            "algorithm.reward.kind to transformers, vllm, server or function"
        )
    if settings.model is None:
        raise ConfigError(f"algorithm.reward.model is not set: kind = {kind!r} needs it")
    if kind == "function":
        from dynasor.rewards.function import FunctionReward, function_named

        return FunctionReward(function_named(settings.model))
    if kind == "vllm":
        from dynasor.engines.vllm_reward import VLLMReward

        return VLLMReward(settings.model)
    from dynasor.rewards.classifier import ClassifierReward

    return ClassifierReward(settings.model)
