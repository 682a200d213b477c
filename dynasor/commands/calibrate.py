"""`dynasor calibrate`: measure a real engine for the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import ConfigOption, JsonOption, ModelOption, TuneOption, overrides

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.config import Config
    from dynasor.engines.calibration import Calibration


def calibrate(
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the simulator.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    max_running: Annotated[
        int | None,
        typer.Option("--max-running", help="Requests in the batch at once.", show_default="128"),
    ] = None,
    tune_cpu: TuneOption = True,
    as_json: JsonOption = False,
) -> None:
    """Measure how long vLLM's steps take here, for simulations of this model on this machine.

    Runs for a minute or two; nothing else should use the machine meanwhile.

    Example: dynasor calibrate --model embedded --out embedded.json
    """
    from rich.console import Console

    from dynasor.commands.engine import run
    from dynasor.config import load_config
    from dynasor.errors import ConfigError

    given = overrides(model=model, tune_cpu=tune_cpu)
    given["engine"]["max_running"] = max_running
    # Steps are alike under any policy, and this one is vLLM's own with a log of its steps.
    given["scheduler"] = {"policy": "vllm"}
    settings = load_config(config, given)
    if settings.engine.kind != "vllm":
        raise ConfigError(f"engine.kind = {settings.engine.kind!r}: only vllm logs its steps")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}; make it first")
    console = Console(stderr=as_json)
    found = run(_calibrate(settings, console))
    if out is not None:
        found.write(out)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        _print(found, console)


async def _calibrate(settings: Config, console: Console) -> Calibration:
    from rich.progress import Progress

    from dynasor.bench.calibrate import calibrate
    from dynasor.commands.engine import started
    from dynasor.engines.vllm import VLLMEngine

    async with started(settings, console) as engine:
        assert isinstance(engine, VLLMEngine)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("loads", total=None)
            found, _ = await calibrate(
                engine,
                progress=lambda done, of: progress.update(task, completed=done, total=of),
            )
    return found


def _print(found: Calibration, console: Console) -> None:
    from rich.table import Table

    time = found.step_time
    table = Table(title=f"{found.model} on {found.hardware}", title_justify="left")
    table.add_column("a step takes")
    table.add_column("microseconds", justify="right")
    for name, seconds in (
        ("at least", time.base),
        ("for each request that decodes", time.per_request),
        *((f"besides, for each of the first {first}", each) for first, each in time.early),
        ("for each token of a prompt", time.per_prefill_token),
        ("for each 1,000 tokens in the KV cache", 1000 * time.per_context_token),
        ("for each request that wants log-probabilities", time.per_logprob),
        ("outside of steps, a request takes", found.per_request),
    ):
        table.add_row(name, f"{1e6 * seconds:,.1f}")
    console.print(table)
    console.print(
        f"{found.steps:,} steps, median error {100 * (time.error or 0):.1f}%; "
        f"{found.max_running} requests and {found.max_batched_tokens} tokens a step, "
        f"{found.kv_blocks:,} KV blocks of {found.block_size} tokens",
        highlight=False,
    )
