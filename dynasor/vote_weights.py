"""How much each vote counts, and which samples do not come to vote, as `[algorithm] weigh` says."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from algorithms.program import Generation
from certaindex.confidence import confidence_statistics
from certaindex.early_cut import EarlyCut
from certaindex.evidence import Evidence
from dynasor import embedded_model
from dynasor.config import Config
from dynasor.errors import ConfigError

_LARGEST = 1 << 16


def weigher(config: Config) -> Callable[[Generation], float] | None:
    """Vote weight of a sample; None where all count the same.

    Raises:
        ConfigError: if nothing was learned about the model that the evidence needs.
    """
    statistic = config.algorithm.weigh
    if statistic is None:
        return None
    if statistic == "evidence":
        evidence = evidence_of(config)
        if evidence is None:
            raise ConfigError(
                "algorithm.weigh = 'evidence' needs algorithm.evidence: learn it from recorded "
                "samples of the model with `dynasor record SUITE --logprobs --out DIR` and "
                "`dynasor evidence DIR/samples.jsonl --out FILE`"
            )
        return lambda sample: evidence.weigh(sample.logprobs)
    return lambda sample: _by_confidence(sample, statistic)


def early_cut(config: Config) -> EarlyCut | None:
    """Which running samples are cut; None where votes are not weighed by evidence, or it does not pay.

    Raises:
        ConfigError: if the evidence cannot be read.
    """
    if config.algorithm.weigh != "evidence" or not config.algorithm.early_cut:
        return None
    evidence = evidence_of(config)
    return None if evidence is None else EarlyCut.of(evidence)


def _by_confidence(sample: Generation, statistic: str) -> float:
    """A statistic of the sample's token confidence; 1 where the engine gave none."""
    if not sample.confidence:
        return 1.0
    return float(getattr(confidence_statistics(sample.confidence), statistic))


def evidence_of(config: Config) -> Evidence | None:
    """What was learned of the model: the configured file, or the embedded model's own, or None.

    Raises:
        ConfigError: if the file cannot be read.
    """
    if config.algorithm.evidence is not None:
        return read_evidence(Path(config.algorithm.evidence))
    return read_evidence(embedded_model.evidence()) if config.is_embedded else None


@lru_cache(maxsize=8)
def read_evidence(path: Path) -> Evidence:
    """Read a file of `dynasor evidence`.

    Raises:
        ConfigError: if it is none.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"larger than {_LARGEST} bytes")
        return Evidence.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"evidence {path}: {error}; make one with `dynasor evidence TRACE --out FILE`"
        ) from None
