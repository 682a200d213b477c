"""`dynasor write`: a long text of a stated length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynasor.commands.options import (
    BaseUrlOption,
    ConfigOption,
    EngineOption,
    JsonOption,
    ModelOption,
    SeedOption,
    TuneOption,
    overrides,
)

if TYPE_CHECKING:
    from rich.console import Console

    from algorithms.agentwrite import Care
    from algorithms.program import Event, Program, Request
    from dynasor.config import Config
    from dynasor.outcome import Outcome
    from dynasor.writing import Written
    from dynasor.writing_judge import Quality


def write(
    instruction: Annotated[
        str, typer.Argument(help="What to write, in quotes; - reads standard input.")
    ],
    words: Annotated[
        int, typer.Option("--words", "-w", min=1, max=200_000, help="Length, words.")
    ] = 2000,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File for the text.", show_default="standard output"),
    ] = None,
    sft: Annotated[
        Path | None,
        typer.Option("--sft", help="Training file that a good text is added to, JSON Lines."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.01, max=9.0, help="Share that a part may be off its length before it is redone."
        ),
    ] = 0.3,
    attempts: Annotated[
        int, typer.Option(min=1, max=20, help="Attempts at a part, and at the plan.")
    ] = 3,
    parallel: Annotated[
        bool,
        typer.Option("--parallel/--sequential", help="Write independent parts at the same time."),
    ] = True,
    judge_url: Annotated[
        str | None,
        typer.Option(
            help="Server of a judge that marks the text (S_q), such as http://host:8000/v1."
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's name on its server.")] = None,
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is greedy.")] = 0.5,
    max_tokens: Annotated[
        int, typer.Option(min=1, max=131072, help="Longest part, tokens.")
    ] = 4096,
    seed: SeedOption = None,
    tune_cpu: TuneOption = True,
    as_json: JsonOption = False,
) -> None:
    """Write a long text by a plan: parts with word budgets, each written and measured (AgentWrite).

    Needs a model that can write; the embedded one only does sums.

    Example: dynasor write "A guide to growing tomatoes on a balcony" --words 3000 --model Qwen/...
    """
    from rich.console import Console

    from algorithms.agentwrite import Care
    from dynasor.ask import LONGEST_QUESTION
    from dynasor.commands.engine import run
    from dynasor.config import load_config
    from dynasor.errors import ConfigError
    from dynasor.writing import append_training_row, why_not_train_on

    if instruction == "-":
        instruction = typer.get_text_stream("stdin").read(LONGEST_QUESTION + 1)
    if not instruction.strip():
        raise ConfigError("INSTRUCTION is empty: say in quotes what to write, or give - for stdin")
    if len(instruction) > LONGEST_QUESTION:
        raise ConfigError(f"INSTRUCTION is longer than {LONGEST_QUESTION} characters")
    given = overrides(
        engine=engine,
        model=model,
        base_url=base_url,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        tune_cpu=tune_cpu,
    )
    settings = load_config(config, given)
    if settings.is_embedded:
        raise ConfigError(
            "the embedded model cannot write: give --model, or --base-url of a server that has one"
        )
    console = Console(stderr=True)
    care = Care(tolerance, attempts, parallel)
    written = run(_write(settings, instruction.strip(), words, care, console))
    _print_table(written, console)
    quality = None
    if judge_url is not None and written.text:
        quality = run(_judge(settings, written, judge_url, judge_model))
        marks = ", ".join(f"{name} {mark}" for name, mark in quality.marks.items())
        console.print(f"quality S_q {quality.score:.0f} of 100: {marks}", highlight=False)
    problem = why_not_train_on(written)
    if sft is not None and problem is None:
        append_training_row(sft, written)
    elif sft is not None:
        console.print(f"not added to {sft}: {problem}", markup=False, style="yellow")
    _deliver(_json(written, problem, quality), out, as_json)
    if not written.text:
        raise typer.Exit(1)


async def _write(
    settings: Config, instruction: str, words: int, care: Care, console: Console
) -> Written:
    from dynasor.commands.engine import started
    from dynasor.programs import sampling_of
    from dynasor.writing import write_text

    sampling = sampling_of(settings)
    async with started(settings, console) as engine:
        return await write_text(
            instruction,
            words,
            engine,
            sampling=sampling,
            care=care,
            wave=max(4, settings.allocator.wave),
            observer=_Narrator(console),
        )


async def _judge(settings: Config, written: Written, url: str, model: str | None) -> Quality:
    import os

    from dynasor.engines.openai import OpenAIEngine
    from dynasor.writing_judge import judge

    key = os.environ.get(settings.engine.api_key_env)
    engine = OpenAIEngine([url], model=model, api_key=key, timeout=settings.engine.timeout)
    await engine.start()
    try:
        return await judge(engine, written.instruction, written.text)
    finally:
        await engine.close()


class _Narrator:
    """Prints a line for each finished request."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def received(self, program: Program, request: Request, event: Event) -> None:
        from algorithms.program import Generation
        from certaindex.length import count_words

        if isinstance(event, Generation):
            said = event.error or f"{count_words(event.text)} words, {event.tokens} tokens"
            self._console.print(f"request {request.index + 1:>3}  {said}", markup=False)

    def stopped(self, program: Program, outcome: Outcome) -> None:
        pass


def _print_table(written: Written, console: Console) -> None:
    from rich.table import Table

    from certaindex.length import count_words

    table = Table(title="parts", title_justify="left")
    table.add_column("part", overflow="fold")
    for heading in ("words planned", "words written"):
        table.add_column(heading, justify="right")
    for part, text in zip(written.plan, written.texts, strict=True):
        table.add_row(part.point[:80], str(part.words), str(count_words(text)))
    console.print(table)
    console.print(
        f"{count_words(written.text)} of {written.words} words, length score S_l "
        f"{written.score:.0f} of 100, {written.outcome.bill.output} tokens, "
        f"{written.outcome.seconds:.1f} s",
        highlight=False,
    )


def _deliver(told: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from dynasor.errors import RunError

    if out is not None:
        try:
            out.write_text(told["text"] + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write to {out}: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
    elif out is None:
        typer.echo(told["text"])


def _json(written: Written, problem: str | None, quality: Quality | None) -> dict[str, Any]:
    from certaindex.length import count_words

    return {
        "instruction": written.instruction,
        "words_requested": written.words,
        "words": count_words(written.text),
        "length_score": written.score,
        "quality": None if quality is None else {"score": quality.score, "marks": quality.marks},
        "certainty": written.outcome.certainty.value,
        "parts": [
            {"point": part.point, "words_planned": part.words, "words": count_words(text)}
            for part, text in zip(written.plan, written.texts, strict=True)
        ],
        "tokens": written.outcome.bill.output,
        "seconds": written.outcome.seconds,
        "problem": problem,
        "text": written.text,
    }
