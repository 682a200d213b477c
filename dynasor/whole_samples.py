"""Which programs can be recorded and replayed: those whose requests are whole samples."""

from __future__ import annotations

from dynasor.config import Config
from dynasor.errors import ConfigError
from dynasor.programs import ALGORITHMS, algorithm_of


def recording_of(config: Config) -> Config:
    """The configuration that draws the same whole samples, all of them to their ends, and no more.

    Raises:
        ConfigError: if the program's requests are not whole samples.
    """
    _check_whole_samples(config)
    algorithm = algorithm_of(config)
    changes: dict[str, object] = {"early_cut": False}
    if algorithm.scored:  # rewards are not kept
        changes["name"] = "self-consistency"
    plain = algorithm.plain(config)
    return plain.model_copy(update={"algorithm": plain.algorithm.model_copy(update=changes)})


def check_replay(config: Config) -> None:
    """See that the engine can answer what the program asks.

    Raises:
        ConfigError: if it is a trace and the program's requests are not whole samples.
    """
    if config.engine.kind == "replay":
        _check_whole_samples(config)


def _check_whole_samples(config: Config) -> None:
    if not algorithm_of(config).whole_samples:
        fit = ", ".join(name for name, each in ALGORITHMS.items() if each.whole_samples)
        raise ConfigError(
            f"algorithm.name = {config.algorithm.name!r}: it asks for steps or probes, which no trace "
            f"holds; samples can be recorded and replayed of {fit}"
        )
