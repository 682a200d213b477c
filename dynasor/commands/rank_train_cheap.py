"""`dynasor rank train-cheap`: the ranker for front ends without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dynasor.commands.options import JsonOption


def rank_train_cheap(
    data: Annotated[Path, typer.Argument(help="Folder of `dynasor rank build-data`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the ranker.")],
    name: Annotated[str, typer.Option("--name", help="For tables.")] = "cheap",
    later_weight: Annotated[
        float,
        typer.Option(
            "--later-weight",
            help="Weight of an answer later in a conversation; a first one has 1.",
            min=0.001,
            max=1,
        ),
    ] = 0.5,
    rounds: Annotated[int, typer.Option("--rounds", help="Most trees.", min=1)] = 800,
    seed: Annotated[int, typer.Option("--seed", help="Of the trees.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a ranker of hashed words and trees: small, without a neural network, quick on any CPU.

    Learns from train.jsonl, and stops when tau on validation.jsonl no longer rises. The data may have
    later turns (`build-data --later-turns`); they help with first turns too.

    Example: dynasor rank train-cheap data/sharegpt --out runs/cheap
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import Progress

    from dynasor.errors import DataError
    from dynasor.ranking.build_data import read_data_card, read_split
    from dynasor.ranking.cheap_training import CheapSettings, look_at, save_cheap, train_cheap

    if not data.is_dir():
        raise DataError(f"{data}: is no folder; make one with `dynasor rank build-data`")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already; give a new folder")
    settings = CheapSettings(later_weight=later_weight, rounds=rounds, seed=seed)
    card = read_data_card(data)
    train, validation = read_split(data, "train"), read_split(data, "validation")
    console = Console(stderr=as_json)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("look at prompts", total=len(train) + len(validation))
        seen = [
            look_at(each, settings, lambda count: progress.advance(task, count))
            for each in (train, validation)
        ]
        stages = progress.add_task("train", total=settings.folds + 2)

        def begins(stage: str) -> None:
            progress.update(stages, description=stage, advance=1)

        trained = train_cheap(seen[0], seen[1], settings, begins)
    about: dict[str, Any] = {
        "data": {key: card.get(key) for key in ("source", "tokenizer", "examples", "split")},
        "metrics": {"validation_tau": max(trained.curve), "trees": trained.trees.best_iteration},
        "backbone": None,
        "licence": "Apache-2.0",
        "training": asdict(settings),
    }
    save_cheap(trained, out, name, about, validation)
    if as_json:
        typer.echo(json.dumps(about["metrics"]))
    else:
        console.print(
            f"tau on validation examples {max(trained.curve):.3f} with "
            f"{trained.trees.best_iteration} trees; saved in {out}",
            highlight=False,
        )
