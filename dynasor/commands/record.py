"""`dynasor record`: samples of a suite into a trace file, for replay, calibration and training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import (
    AlgorithmOption,
    BaseUrlOption,
    BenchSeedOption,
    ConfigOption,
    EngineOption,
    InstructionOption,
    MaxTokensOption,
    ModelOption,
    SamplesOption,
    TemperatureOption,
    TuneOption,
    bench_seed,
    overrides,
)

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.config import Config
    from dynasor.suites import Suite


def record(
    suite: Annotated[str, typer.Argument(help="As for `dynasor bench`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder; the trace is its samples.jsonl.")],
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first so many questions.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw an earlier run in --out away.")
    ] = False,
    question_field: Annotated[str | None, typer.Option(help="Field of the question.")] = None,
    answer_field: Annotated[str | None, typer.Option(help="Field of the right answer.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hugging Face dataset.")] = None,
    extractor: Annotated[str | None, typer.Option(help="How answers are read.")] = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="Keep each token's log-probability as well.")
    ] = False,
    instruction: InstructionOption = None,
    algorithm: AlgorithmOption = None,
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    samples: SamplesOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    seed: BenchSeedOption = None,
    tune_cpu: TuneOption = True,
) -> None:
    """Sample every question of a suite with the full budget, and keep each sample.

    With --algorithm deepconf the confidence of each token is kept as well. Only programs whose
    requests are whole samples can be recorded. Stopped or killed, the same command goes on where
    it was.
    """
    from rich.console import Console

    from dynasor.commands.engine import run
    from dynasor.config import load_config
    from dynasor.suites import load_suite
    from dynasor.whole_samples import recording_of

    given = overrides(
        engine=engine,
        model=model,
        base_url=base_url,
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        extractor=extractor,
        instruction=instruction,
        algorithm=algorithm,
        logprobs=logprobs or None,
        tune_cpu=tune_cpu,
    )
    settings = recording_of(bench_seed(load_config(config, given)))
    questions = load_suite(
        suite, limit=limit, split=split, question_field=question_field, answer_field=answer_field
    )
    if run(_record(settings, questions, out, fresh, Console())):
        raise typer.Exit(1)


async def _record(settings: Config, suite: Suite, path: Path, fresh: bool, console: Console) -> int:
    """Number of failed requests."""
    from certaindex.equivalence import AnswerEquivalence
    from dynasor.bench.offline import System, folder_of, full_rule, run_system
    from dynasor.commands.display import QueryProgress
    from dynasor.commands.engine import started

    system = System("record", "", full_rule(settings))
    async with started(settings, console) as engine:
        model = engine.capacity().model
        with (
            folder_of(path, settings, suite, system, model, fresh) as folder,
            QueryProgress(console, "record", len(suite.queries), len(folder.outcomes)) as progress,
            AnswerEquivalence() as equivalence,
        ):
            rows = await run_system(settings, suite, system, engine, folder, equivalence, progress)
    console.print(
        f"{sum(row['samples'] for row in rows)} samples of {len(rows)} questions in "
        f"{path / 'samples.jsonl'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return sum(row["failed"] for row in rows)
