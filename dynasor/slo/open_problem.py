"""From a configuration, traces and a calibrated engine to what can be tuned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dynasor.bench.arrivals import parse_traffic
from dynasor.config import Config
from dynasor.engines.calibration import Calibration
from dynasor.errors import ConfigError, DataError
from dynasor.scheduling.aging import aging_of
from dynasor.slo.load_model import LASTS, ClassTraffic, LoadModel
from dynasor.slo.prediction import Problem
from dynasor.slo.recorded_classes import ranks_of
from dynasor.slo.space import Space
from dynasor.slo.tables import OutcomeTables, split_queries


def load_model(
    config: Config,
    engine: Calibration,
    classes: Mapping[str, ClassTraffic],
    traffic: str,
    *,
    counted: int,
    seed: int,
) -> LoadModel:
    """Simulated engines under the traffic of the classes.

    Raises:
        ConfigError: if the program is not self-consistency of plain votes.
    """
    _check_program(config)
    return LoadModel(
        engine,
        classes,
        parse_traffic(traffic),
        aging=aging_of(config.scheduler),
        fit_memory=config.scheduler.fit_memory,
        ranked=ranks_of(config, classes),
        counted=counted,
        lasting=LASTS * max((each.longest for each in config.slo.classes.values()), default=0.0),
        seed=seed,
    )


def problem_of(
    config: Config,
    engine: Calibration,
    classes: Mapping[str, ClassTraffic],
    space: Space,
    traffic: str,
    *,
    counted: int,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> Problem:
    """The problem, with what cannot be tuned refused.

    Raises:
        ConfigError: if the program is not self-consistency of plain votes, or `[slo]` lacks a number.
    """
    slo, full = config.slo, config.algorithm.samples
    _check_program(config)
    if full == 1:
        raise ConfigError(
            "algorithm.samples = 1: a full budget of one sample leaves nothing to save; set that of the "
            "recorded queries, such as 16"
        )
    if slo.rate is None:
        raise ConfigError("slo.rate is not set: for how many queries a second is this promised?")
    for name, promise in slo.classes.items():
        if promise.epsilon is None:
            raise ConfigError(
                f"slo.classes.{name}.epsilon is not set: without a limit on the loss the cheapest is "
                "a single sample; promise one, such as 0.02 for 2 points"
            )
        _check_tokens(name, promise.tokens_per_query, classes[name])
    tables = {
        name: OutcomeTables(
            [question.query for question in each.questions.values()],
            space.all_rules(),
            full_samples=full,
            seed=seed,
            progress=progress,
        )
        for name, each in classes.items()
    }
    return Problem(
        promises=slo.classes,
        tables=tables,
        splits={name: split_queries(len(table.queries), seed) for name, table in tables.items()},
        load=load_model(config, engine, classes, traffic, counted=counted, seed=seed),
        rate=slo.rate,
        full_samples=full,
    )


def _check_program(config: Config) -> None:
    """See that recorded samples say what the program would do."""
    algorithm = config.algorithm
    if algorithm.name != "self-consistency":
        raise ConfigError(
            f"algorithm.name = {algorithm.name!r}: replay prices self-consistency only; name that"
        )
    if algorithm.weigh is not None:
        raise ConfigError(
            f"algorithm.weigh = {algorithm.weigh!r}: the guarantee is computed on plain votes; leave "
            "it out"
        )


def _check_tokens(name: str, promised: int | None, traffic: ClassTraffic) -> None:
    """See that a budget of tokens is enough for one sample a query."""
    if promised is None:
        return
    lengths = [sum(q.query.tokens) / len(q.query.tokens) for q in traffic.questions.values()]
    one = sum(lengths) / len(lengths)
    if promised < one:
        raise ConfigError(
            f"slo.classes.{name}.tokens_per_query = {promised} is below one sample, which takes "
            f"{one:,.0f} tokens in the mean of the trace; raise it to {one:,.0f} or more"
        )


def fingerprint(
    config: Config, files: Sequence[Path], space: Space, traffic: str, counted: int, seed: int
) -> str:
    """What makes two searches the same: promises, settings, space, and the bytes of the files.

    Raises:
        DataError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    slo = config.slo.model_dump(exclude={"calibration", "audit", "classes", "watch"})
    promises = {
        name: each.model_dump(exclude={"settings"}) for name, each in config.slo.classes.items()
    }
    settings = [slo, promises, config.algorithm.samples, config.scheduler.fit_memory,
                config.scheduler.patience, config.scheduler.turns, config.ranking.model,
                space, traffic, counted, seed]  # fmt: skip
    digest.update(json.dumps(settings, default=str).encode())
    return digest.hexdigest()
