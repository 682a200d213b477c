"""Options that several subcommands share, and how they become a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynasor.config_sources import merge, nested
from dynasor.errors import ConfigError

if TYPE_CHECKING:
    from dynasor.config import Config

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with sections engine, algorithm, allocator, ...",
        show_default=False,
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine", help="vllm (here), openai (a server), replay (a trace).", show_default="vllm"
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Folder or hub name of a model, or its name on the server.",
        show_default="the embedded model",
    ),
]
BaseUrlOption = Annotated[
    list[str] | None,
    typer.Option("--base-url", help="Server for --engine openai; may be given several times."),
]
SamplesOption = Annotated[
    int | None,
    typer.Option("--samples", "-n", help="Full budget, samples a query.", show_default="16"),
]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", help="0 is greedy.", show_default="1")
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", help="Longest sample, tokens.", show_default="1024")
]
WaveOption = Annotated[
    int | None,
    typer.Option(
        "--wave",
        help="Samples of a query in flight: more answers sooner and costs more tokens.",
        show_default="1",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Same seed, same samples, where the engine can.")
]
TuneOption = Annotated[
    bool,
    typer.Option("--tune-cpu/--no-tune-cpu", help="Preload fast libraries, bind threads on CPU."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


WeighOption = Annotated[
    str | None,
    typer.Option(
        "--weigh", help="Weigh votes by: evidence, mean, lowest_group, tail, bottom_tenth."
    ),
]
EvidenceOption = Annotated[
    Path | None,
    typer.Option(
        "--evidence",
        help="What `dynasor evidence` learned of the model, for --weigh evidence.",
        show_default="the embedded model's own",
    ),
]
EarlyCutOption = Annotated[
    bool,
    typer.Option(
        "--early-cut/--no-early-cut",
        help="With evidence: cut a sample once it has become improbable, where that pays.",
    ),
]
InstructionOption = Annotated[
    str | None,
    typer.Option(
        "--instruction",
        help="Added to each question.",
        show_default="asks to reason and to box the answer; nothing for the embedded model",
    ),
]


AlgorithmOption = Annotated[
    str | None,
    typer.Option(
        "--algorithm",
        help="Reasoning program: self-consistency, best-of-n, beam-search, dvts, rebase, mcts, "
        "dynasor-cot, deepconf, short-m-of-k.",
        show_default="self-consistency",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting as SECTION.KEY=VALUE, such as algorithm.search.children=2; may be given "
        "several times.",
    ),
]


BenchSeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Same seed, same samples; all systems of a run then see the same ones.",
        show_default="1; none for --engine openai, whose servers may not take one",
    ),
]
BENCH_SEED = 1


def bench_seed(settings: Config) -> Config:
    """The configuration with a benchmark's seed, where none is set and the engine is ours."""
    if settings.algorithm.seed is not None or settings.engine.kind == "openai":
        return settings
    algorithm = settings.algorithm.model_copy(update={"seed": BENCH_SEED})
    return settings.model_copy(update={"algorithm": algorithm})


def overrides(
    *,
    engine: str | None = None,
    model: str | None = None,
    base_url: list[str] | None = None,
    traces: Path | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    wave: int | None = None,
    seed: int | None = None,
    rule: str | None = None,
    budget: float | None = None,
    extractor: str | None = None,
    instruction: str | None = None,
    weigh: str | None = None,
    evidence: Path | None = None,
    early_cut: bool = True,
    logprobs: bool | None = None,
    algorithm: str | None = None,
    settings: list[str] | None = None,
    tune_cpu: bool = True,
) -> dict[str, dict[str, Any]]:
    """Command line values by section of the configuration; None means not given.

    Raises:
        ConfigError: if one of `settings` is not SECTION.KEY=VALUE.
    """
    if engine is None and base_url:
        engine = "openai"
    given: dict[str, dict[str, Any]] = {
        "engine": {
            "kind": engine,
            "model": model,
            "base_urls": tuple(base_url) if base_url else None,
            "traces": str(traces) if traces else None,
            "tune_cpu": None if tune_cpu else False,
        },
        "algorithm": {
            "name": algorithm,
            "samples": samples,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
            "extractor": extractor,
            "instruction": instruction,
            "weigh": weigh,
            "evidence": None if evidence is None else str(evidence),
            "early_cut": None if early_cut else False,
            "logprobs": logprobs,
        },
        "allocator": {"rule": rule, "budget": budget, "wave": wave},
    }
    for setting in settings or ():
        merge(given, _setting(setting))
    return given


def _setting(text: str) -> dict[str, Any]:
    """SECTION.KEY=VALUE as nested sections."""
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {text}: must be SECTION.KEY=VALUE, such as allocator.wave=4")
    return nested(keys, value)
