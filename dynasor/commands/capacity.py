"""`dynasor capacity`: how many engines a load takes, and what load engines carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import ConfigOption, JsonOption
from dynasor.commands.tune import (
    ArrivalsOption,
    EngineFileOption,
    RateOption,
    SloTracesOption,
    TrafficOption,
)

if TYPE_CHECKING:
    from dynasor.slo.capacity import Answer


def capacity(
    config: ConfigOption = None,
    traces: SloTracesOption = None,
    engine_times: EngineFileOption = Path("engine.json"),
    rate: RateOption = None,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, max=1024, help="Also: what load do so many carry?"),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=100, help="Simulated runs of each number.")
    ] = 5,
    traffic: TrafficOption = "poisson",
    arrivals: ArrivalsOption = 400,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of arrivals and samples.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Say how many engines the load of the slo section takes, and what load --replicas of them carry.

    The settings are those of the configuration, such as the tuned.toml of `dynasor tune`; the latency
    promises are those of the slo section. Engines are simulated, with the recorded queries and the step
    times of `dynasor calibrate`; a number is of all runs together, and how far single runs stray from it
    stands beside it. For hardware that is not at hand write --engine-times by hand: see docs/slo.md.

    Example: dynasor capacity --config tuned.toml --traces samples.jsonl --rate 12 --replicas 4
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from dynasor.config import load_config
    from dynasor.engines.calibration import Calibration
    from dynasor.errors import ConfigError
    from dynasor.slo.capacity import Capacity, plan_of
    from dynasor.slo.open_problem import load_model
    from dynasor.slo.recorded_classes import classes_of
    from dynasor.slo.refusal import words

    settings = load_config(config, {"slo": {"rate": rate}})
    asked = settings.slo.rate
    if asked is None and replicas is None:
        raise ConfigError("give --rate (or slo.rate) for the engines, or --replicas for the load")
    engine = Calibration.read(engine_times)
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True
    ) as progress:
        task = progress.add_task("traces", total=None)
        classes = classes_of(settings, traces or [])
        load = load_model(settings, engine, classes, traffic, counted=arrivals, seed=seed)
        plan = plan_of(settings, engine)
        answers = Capacity(
            load,
            plan,
            settings.slo.classes,
            range(repeats),
            lambda text: progress.update(task, description=text),
        )
        engines = None if asked is None else answers.replicas(asked)
        highest = None if replicas is None else answers.rate(replicas, asked or 1.0)
    if as_json:
        values = {
            "rate": asked,
            "replicas_needed": None if engines is None else engines._asdict(),
            "replicas": replicas,
            "highest_rate": None if highest is None else highest._asdict(),
            "runs": repeats,
        }
        typer.echo(json.dumps(values))
        return
    typer.echo(f"each engine: {words(plan)}")
    if engines is not None:
        typer.echo(_engines(engines, asked, repeats))
    if highest is not None:
        typer.echo(_load(highest, replicas, repeats))


def _engines(found: Answer, rate: float | None, runs: int) -> str:
    if found.value is None:
        return (
            f"{rate:g} queries a second: no number of engines keeps the promises; a query takes too "
            "long even alone, so promise more time or tune anew"
        )
    number = f"{found.value:g} engine" + "s" * (found.value > 1)
    return f"{rate:g} queries a second take {number} to keep the promises ({_range(found, runs)})"


def _load(found: Answer, replicas: int | None, runs: int) -> str:
    number = f"{replicas} engine" + "s" * (replicas != 1)
    if found.value is None:
        return f"{number}: at no rate are the promises kept; promise more time or tune anew"
    return (
        f"{number} carry {found.value:.3g} queries a second and keep them ({_range(found, runs)})"
    )


def _range(found: Answer, runs: int) -> str:
    low, high = ("none will do" if each is None else f"{each:.3g}" for each in found.range)
    return f"{low} to {high} in {runs} single runs"
