"""What the commands have in common that make a ranker of a pretrained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

DataArgument = Annotated[Path, typer.Argument(help="Folder of `dynasor rank build-data`.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for the ranker.")]
BackboneOption = Annotated[
    str,
    typer.Option(
        "--backbone",
        help="all-MiniLM-L6-v2 (from its package, no download), a model folder, or a name on the "
        "hub.",
    ),
]
PoolingOption = Annotated[str, typer.Option("--pooling", help="mean, or last (for decoders).")]
WindowOption = Annotated[
    int,
    typer.Option("--window", help="Tokens of a prompt that are read: its first and its last."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads.", min=1, show_default="torch's own"),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="cpu or cuda.", show_default="a GPU, if torch finds one"),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Throw an earlier training in the folder away.")
]


def device_of(device: str | None, threads: int | None) -> str:
    """Where torch is to compute; it is told its threads.

    Raises:
        ConfigError: if there is no such device here.
    """
    import torch

    from dynasor.errors import ConfigError

    if device not in (None, "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"--device {device}: torch has none such here; give cpu")
    if threads is not None:
        torch.set_num_threads(threads)
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def about_data(folder: Path) -> dict[str, Any]:
    """What the card of a ranker says of its data folder."""
    from dynasor.ranking.build_data import read_data_card

    source = read_data_card(folder)
    return {key: source.get(key) for key in ("source", "tokenizer", "split")}


def ranker_table(card: dict[str, Any], out: Path) -> Table:
    """How well it orders the prompts of each split."""
    from rich.table import Table

    table = Table(title=f"{card['name']} in {out}", title_justify="left")
    for heading in ("prompts", "number", "Kendall's tau", "95% interval"):
        table.add_column(heading, justify="left" if heading == "prompts" else "right")
    for split, found in card["metrics"].items():
        low, high = found["tau_interval"]
        table.add_row(
            split.replace("_", "-"),
            f"{found['n']:,}",
            f"{found['tau']:.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    return table
