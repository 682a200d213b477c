"""`dynasor rank probe`: learn from few prompts, by what a pretrained model makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import JsonOption
from dynasor.commands.rank_making import (
    BackboneOption,
    DataArgument,
    DeviceOption,
    FreshOption,
    OutOption,
    PoolingOption,
    ThreadsOption,
    WindowOption,
    about_data,
    device_of,
    ranker_table,
)

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.ranking.train_probe import ProbeTraining


def rank_probe(
    data: DataArgument,
    out: OutOption,
    backbone: BackboneOption = "all-MiniLM-L6-v2",
    pooling: PoolingOption = "mean",
    window: WindowOption = 256,
    seed: Annotated[
        int, typer.Option("--seed", help="Of the choice, where there are too many.", min=0)
    ] = 0,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a ranker of a pretrained model as it comes.

    Reads each prompt once, and fits a regression on the hidden states. Nothing of the model is trained,
    so some hundred prompts suffice, such as recorded problems; it learns from 5,000 at most. The larger
    the model, the better the order, and the longer it takes to read a prompt: with an instruct decoder
    of 1.5 billion parameters a third of a second on two CPU cores, so give `ranking.deadline` time.

    What was read is kept: after Ctrl-C or a kill the same command goes on.

    Examples:

        dynasor rank probe data/mine --out probe

        dynasor rank probe data/mine --out probe --backbone Qwen/Qwen2.5-1.5B-Instruct --pooling last
    """
    from rich.console import Console

    from dynasor.ranking.prompt_states import StateSettings
    from dynasor.ranking.ranker_data import read_ranker_data
    from dynasor.ranking.train_probe import ProbeTraining

    console = Console(stderr=True)
    place = device_of(device, threads)
    settings = StateSettings(backbone=backbone, pooling=pooling, window=window)
    examples = read_ranker_data(data, later_turns=0, seed=seed)
    with console.status("loading the backbone"):
        training = ProbeTraining(
            examples, about_data(data), out, settings, device=place, seed=seed, fresh=fresh
        )
    try:
        _read(training, console)
        with console.status("fitting and judging"):
            card = training.finish()
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", style="yellow")
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(card))
        return
    printed = Console()
    printed.print(ranker_table(card, out))
    printed.print(f"{card['data']['train']:,} prompts, read by {backbone}", highlight=False)


def _read(training: ProbeTraining, console: Console) -> None:
    from rich.progress import Progress

    with Progress(console=console) as progress:
        task = progress.add_task("reading prompts", total=len(training.examples))
        training.read(lambda done: progress.update(task, completed=done))
