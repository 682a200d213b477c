"""`dynasor solve`: one question, shown as it happens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynasor.commands.options import (
    AlgorithmOption,
    BaseUrlOption,
    ConfigOption,
    EarlyCutOption,
    EngineOption,
    EvidenceOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    SamplesOption,
    SeedOption,
    SetOption,
    TemperatureOption,
    TuneOption,
    WaveOption,
    WeighOption,
    overrides,
)

if TYPE_CHECKING:
    from rich.console import Console

    from algorithms.program import Event, Program, Request
    from dynasor.config import Config
    from dynasor.outcome import Outcome


def solve(
    question: Annotated[
        str, typer.Argument(help="The question, in quotes; - reads standard input.")
    ],
    algorithm: AlgorithmOption = None,
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="Stop rule; see `dynasor rules`.", show_default="default"),
    ] = None,
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    samples: SamplesOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    wave: WaveOption = None,
    weigh: WeighOption = None,
    evidence: EvidenceOption = None,
    early_cut: EarlyCutOption = True,
    seed: SeedOption = None,
    setting: SetOption = None,
    tune_cpu: TuneOption = True,
    as_json: JsonOption = False,
) -> None:
    """Answer one question by sampling until the answer is certain.

    Example: dynasor solve "Mia has 14 shells. She finds 8 more. She gives away 5. How many shells
    does Mia have now?"
    """
    from rich.console import Console

    from dynasor.ask import LONGEST_QUESTION
    from dynasor.commands.engine import run
    from dynasor.config import load_config
    from dynasor.errors import ConfigError

    if question == "-":
        question = typer.get_text_stream("stdin").read(LONGEST_QUESTION + 1)
    if not question.strip():
        raise ConfigError("QUESTION is empty: give the question in quotes, or - and standard input")
    if len(question) > LONGEST_QUESTION:
        raise ConfigError(f"QUESTION is longer than {LONGEST_QUESTION} characters")
    given = overrides(
        engine=engine,
        model=model,
        base_url=base_url,
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        wave=wave,
        seed=seed,
        rule=rule,
        weigh=weigh,
        evidence=evidence,
        algorithm=algorithm,
        settings=setting,
        early_cut=early_cut,
        tune_cpu=tune_cpu,
    )
    settings = load_config(config, given)
    console = Console(stderr=as_json)
    outcome = run(_solve(settings, question.strip(), console))
    if as_json:
        typer.echo(json.dumps(_json(outcome, settings), ensure_ascii=False))
    else:
        _print(outcome, settings, console)
    if outcome.reason == "failed":
        raise typer.Exit(1)


async def _solve(settings: Config, question: str, console: Console) -> Outcome:
    from dynasor.ask import certain_answer
    from dynasor.commands.engine import started

    async with started(settings, console) as engine:
        return await certain_answer(
            question, config=settings, engine=engine, observer=_Narrator(console)
        )


class _Narrator:
    """Prints a line for each finished sample."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def received(self, program: Program, request: Request, event: Event) -> None:
        from algorithms.program import Generation

        if not isinstance(event, Generation):
            return
        if event.finish_reason in ("aborted", "error"):
            what = event.error or "cut"
            self._console.print(
                f"{request.kind} {request.index + 1:>3}  {what}",
                style="dim",
                markup=False,
                highlight=False,
            )
            return
        if request.kind == "score":
            return
        votes = "  ".join(f"{c.answer} x{c.votes}" for c in program.answer().candidates[:4])
        certainty = program.certainty()
        shown = f"{certainty.value:.2f}" if certainty.evidence > 1 else "-"
        self._console.print(
            f"{request.kind} {request.index + 1:>3}  {event.tokens:>5} tokens   "
            f"certaindex {shown:>4}   {votes}",
            markup=False,
            highlight=False,
        )

    def stopped(self, program: Program, outcome: Outcome) -> None:
        pass


def _print(outcome: Outcome, settings: Config, console: Console) -> None:
    candidates = outcome.answer.candidates
    if candidates:
        console.print()
        console.print(candidates[0].text.strip(), markup=False, highlight=False)
    for error in outcome.errors:
        console.print(f"failed: {error}", markup=False, style="red")
    console.print()
    answer = outcome.answer.value
    console.print(
        f"answer   {answer if answer is not None else 'none'}", markup=False, style="bold"
    )
    console.print(f"stopped  {explain(outcome.reason)}", markup=False, highlight=False)
    saved = settings.algorithm.samples - outcome.samples
    counted = f"{outcome.samples} of {settings.algorithm.samples} samples ({saved} saved)"
    if settings.algorithm.name == "dynasor-cot":
        counted = f"{outcome.samples} probes"
    console.print(
        f"cost     {counted}, {outcome.bill.output} tokens, {outcome.seconds:.1f} s",
        markup=False,
        highlight=False,
    )


def explain(reason: str) -> str:
    """A stop reason in words."""
    return {
        "certain": "certain: more samples would hardly change the answer",
        "hopeless": "hopeless: more samples would hardly make the answer right",
        "complete": "complete: the full budget is used",
        "budget": "budget: the tokens of the batch are used up",
        "deadline": "deadline: the best answer so far",
        "failed": "failed: the engine could not finish any request",
    }[reason]


def _json(outcome: Outcome, settings: Config) -> dict[str, Any]:
    return {
        "answer": outcome.answer.value,
        "votes": {c.answer: c.votes for c in outcome.answer.candidates},
        "certainty": {"value": outcome.certainty.value, "measure": outcome.certainty.measure},
        "reason": outcome.reason,
        "samples": outcome.samples,
        "budget": settings.algorithm.samples,
        "tokens": outcome.bill.output,
        "cut_tokens": outcome.bill.cut,
        "prompt_tokens": outcome.bill.prompt,
        "cached_tokens": outcome.bill.cached,
        "seconds": outcome.seconds,
        "text": outcome.answer.candidates[0].text if outcome.answer.candidates else None,
        "errors": list(outcome.errors),
    }
