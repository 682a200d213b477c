"""`dynasor rank train`: teach a pretrained model which prompts have long answers."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

    from dynasor.ranking.train_ranker import RankerTraining


def rank_train(
    data: DataArgument,
    out: OutOption,
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            help="listmle, ranknet, margin, regression or classification (of ten buckets).",
        ),
    ] = "classification",
    backbone: BackboneOption = "all-MiniLM-L6-v2",
    pooling: PoolingOption = "mean",
    window: WindowOption = 96,
    tuned_layers: Annotated[
        int, typer.Option("--tuned-layers", help="Uppermost layers that are trained.")
    ] = 3,
    later_turns: Annotated[
        int,
        typer.Option(
            "--later-turns",
            help="Later turns to learn from, at most, where the data have any.",
            min=0,
        ),
    ] = 16_000,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the data.")] = 2.0,
    minutes: Annotated[
        float, typer.Option("--minutes", help="Training ends by then, whatever --epochs says.")
    ] = 40.0,
    list_size: Annotated[int, typer.Option("--list-size", help="Prompts a list and step.")] = 32,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate.")] = 3e-4,
    patience: Annotated[
        int, typer.Option("--patience", help="Checks without a better held-out tau before the end.")
    ] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a ranker on prompts and the length of their answers.

    Four times an epoch it is judged by Kendall's tau on held-out prompts, and the best weights are
    kept. A training that was killed goes on when the same command is given again; Ctrl-C ends it with
    the best weights so far.

    Examples:

        dynasor rank train data/sharegpt-all --out models/mine

        dynasor rank train data/mine --out models/opt --backbone facebook/opt-125m --pooling last
    """
    from rich.console import Console

    from dynasor.ranking.encoder import EncoderSettings
    from dynasor.ranking.ranker_data import read_ranker_data
    from dynasor.ranking.train_ranker import RankerTraining
    from dynasor.ranking.training import TrainingPlan

    console = Console(stderr=True)
    place = device_of(device, threads)
    plan = TrainingPlan(
        loss=loss,
        epochs=epochs,
        minutes=minutes,
        list_size=list_size,
        rate=rate,
        patience=patience,
        seed=seed,
    )
    settings = EncoderSettings(
        backbone=backbone,
        pooling=pooling,
        window=window,
        tuned_layers=tuned_layers,
    )
    examples = read_ranker_data(data, later_turns=later_turns, seed=seed)
    with console.status("preparing prompts"):
        run = RankerTraining(
            examples, about_data(data), out, settings, plan, device=place, fresh=fresh
        )
    stopped = _train(run, console)
    with console.status("judging what was learned"):
        card = run.finish()
    if as_json:
        typer.echo(json.dumps(card))
    else:
        _print(card, out)
    if stopped:
        console.print("stopped; the same command goes on from here", style="yellow")
        raise typer.Exit(130)


def _train(run: RankerTraining, console: Console) -> bool:
    """Train with a bar; returns whether Ctrl-C ended it. A second Ctrl-C does not wait for a step."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    training = run.training

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        training.stop()

    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  held-out tau {task.fields[tau]}"),
        TimeElapsedColumn(),
        console=console,
    )
    earlier = signal.signal(signal.SIGINT, stop)
    try:
        with bar:
            task = bar.add_task("", total=1.0, loss=0.0, tau="-")

            def observe(progress: float, loss: float) -> None:
                best = training.best
                tau = f"{best.tau:.3f}" if best else "-"
                bar.update(task, completed=progress, loss=loss, tau=tau)

            training.run(observe)
    finally:
        signal.signal(signal.SIGINT, earlier)
    return not training.finished


def _print(card: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    console = Console()
    console.print(ranker_table(card, out))
    training = card["training"]
    console.print(
        f"{card['data']['train']:,} examples, {training['loss']}, {training['steps']:,} lists, "
        f"{training['seconds'] / 60:.1f} minutes; curves in {out / 'learning_curves.png'}",
        highlight=False,
    )
