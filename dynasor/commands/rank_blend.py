"""`dynasor rank blend`: one ranker out of several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dynasor.commands.options import JsonOption


def rank_blend(
    data: Annotated[Path, typer.Argument(help="Folder of `dynasor rank build-data`.")],
    members: Annotated[
        list[str], typer.Option("--member", help="A ranker: `cheap`, or a folder; give several.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the blend.")],
    as_json: JsonOption = False,
) -> None:
    """Blend rankers: the mean of their scores, each on its scale on the held-out prompts.

    Rankers of different kinds err differently, and their mean orders better than each of them.

    Example: dynasor rank blend data/sharegpt --member cheap --member models/mine --out models/both
    """
    from rich.console import Console

    from dynasor.errors import ConfigError, DataError, RunError
    from dynasor.ranking.blend import BlendRanker
    from dynasor.ranking.build_data import read_data_card
    from dynasor.ranking.length_calibration import CALIBRATION, LengthCalibration
    from dynasor.ranking.model_folder import read_card, write_card
    from dynasor.ranking.order_metrics import order_metrics
    from dynasor.ranking.ranker_data import read_ranker_data

    if len(members) < 2:
        raise ConfigError("--member: a blend needs at least two rankers")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already; give a new folder")
    source = read_data_card(data)
    examples = read_ranker_data(data, later_turns=0, seed=0)
    console = Console(stderr=True)
    with console.status("scoring held-out prompts"):
        blend = BlendRanker.fit(members, [example.prompt for example in examples.held_out])
        metrics, scores = {}, {}
        for split in ("held_out", "test"):
            judged = getattr(examples, split)
            if judged:
                scores[split] = blend.score([example.prompt for example in judged])
                metrics[split] = order_metrics(scores[split], judged)
    try:
        out.mkdir(parents=True, exist_ok=True)
        LengthCalibration.fit(scores["held_out"], examples.held_out).save(out / CALIBRATION)
        about = {
            "members": blend.save(out),
            "data": {key: source.get(key) for key in ("source", "tokenizer", "split")},
            "metrics": metrics,
            "licence": "that of its members",
        }
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror}); check it") from None
    write_card(out, "blend", out.resolve().name, about)
    if as_json:
        typer.echo(json.dumps(read_card(out)))
        return
    for split, found in metrics.items():
        low, high = found["tau_interval"]
        typer.echo(
            f"{split.replace('_', '-')}: Kendall's tau {found['tau']:.3f} [{low:.3f}, {high:.3f}] "
            f"on {found['n']:,} prompts"
        )
