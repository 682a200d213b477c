"""`dynasor bench online`: systems under open-loop traffic, by rate and by SLO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import (
    BaseUrlOption,
    BenchSeedOption,
    ConfigOption,
    EngineOption,
    EvidenceOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    SamplesOption,
    TemperatureOption,
    TuneOption,
    bench_seed,
    overrides,
)

if TYPE_CHECKING:
    from dynasor.config import Config


def bench_online(
    suite: Annotated[
        str, typer.Option("--suite", help="As for `dynasor bench`; its levels are SLO classes.")
    ] = "embedded",
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first so many questions.")
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="quick, ablation (minutes) or full (hours).")
    ] = "quick",
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", help="System, may be given several times; `all`.", show_default="by profile"
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            "--rates",
            help="Arrivals a second, such as 0.5,1,2.",
            show_default="factors of vanilla's measured capacity",
        ),
    ] = None,
    scale_rate: Annotated[
        float | None,
        typer.Option(
            "--scale-rate",
            help="The one of --rates at which the tightest SLO is looked for.",
            show_default="the lowest",
        ),
    ] = None,
    slo_scale: Annotated[
        float,
        typer.Option("--slo-scale", help="Deadline over the idle engine's latency of the class."),
    ] = 5.0,
    traffic: Annotated[
        str, typer.Option("--traffic", help="poisson, gamma:CV (bursts), or trace:FILE of times.")
    ] = "poisson",
    chats: Annotated[
        float, typer.Option("--chats", help="Share of plain chats, one sample each, 0 to 1.")
    ] = 0.0,
    duration: Annotated[
        float | None,
        typer.Option("--duration", help="Traffic of a run, seconds.", show_default="by profile"),
    ] = None,
    warm_up: Annotated[
        float | None,
        typer.Option("--warm-up", help="Of that, first seconds not counted."),
    ] = None,
    cool_down: Annotated[
        float | None,
        typer.Option("--cool-down", help="Of that, last seconds not counted."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", help="Runs of each rate.", show_default="by profile")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="Stop rule of ours.", show_default="default"),
    ] = None,
    wave: Annotated[
        int, typer.Option("--wave", help="Samples in flight of a query that may stop early.")
    ] = 4,
    max_running: Annotated[
        int | None,
        typer.Option("--max-running", help="Requests in the batch at once.", show_default="64"),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder; the same command goes on there.")
    ] = Path("runs/online"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw an earlier benchmark in --out away.")
    ] = False,
    simulated: Annotated[
        Path | None,
        typer.Option(
            "--simulated",
            help="In virtual time, on an engine as `dynasor calibrate --out FILE` measured it.",
        ),
    ] = None,
    traces: Annotated[
        list[Path] | None,
        typer.Option(
            "--traces", help="Recorded samples for --simulated; may be given several times."
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", help="Engines behind one front end, with --simulated.")
    ] = 1,
    slo_class: Annotated[
        str,
        typer.Option(
            "--slo-class",
            help="With --simulated: deadlines by the latency of a fifth of the questions (level), "
            "or of each question.",
        ),
    ] = "level",
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    samples: SamplesOption = None,
    temperature: TemperatureOption = None,
    evidence: EvidenceOption = None,
    max_tokens: MaxTokensOption = None,
    seed: BenchSeedOption = None,
    tune_cpu: TuneOption = True,
    as_json: JsonOption = False,
) -> None:
    """Compare ours with vanilla vLLM under traffic: which rate, and which SLO, each can hold.

    Queries arrive at their times whatever the engine does. An answer is in time within the SLO scale
    times the latency of such a query on the idle engine. A benchmark that was stopped or killed goes
    on where it was when the same command is given again.
    """
    from rich.console import Console

    from dynasor.bench.arrivals import parse_traffic
    from dynasor.bench.online import Benchmark
    from dynasor.bench.online_profile import (
        check_arrivals,
        check_scale,
        check_scale_rate,
        choose_profile,
        parse_rates,
    )
    from dynasor.bench.simulated_bench import can_simulate, open_simulation
    from dynasor.bench.systems import all_systems, choose_systems
    from dynasor.commands.engine import run
    from dynasor.commands.online_run import bench_and_show
    from dynasor.config import load_config
    from dynasor.errors import ConfigError
    from dynasor.suites import load_suite
    from dynasor.vote_weights import evidence_of

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
        evidence=evidence,
        tune_cpu=tune_cpu,
    )
    given["engine"]["max_running"] = max_running
    settings = _with_places(bench_seed(load_config(config, given)))
    if settings.algorithm.name != "self-consistency":
        raise ConfigError(
            f"algorithm.name = {settings.algorithm.name!r}: the online benchmark compares ways to serve "
            "self-consistency; `dynasor bench` runs the other programs"
        )
    if not 0 <= chats < 1:
        raise ConfigError(f"--chats {chats:g}: must be 0 or more and below 1")
    chosen = choose_profile(
        profile, duration=duration, warm_up=warm_up, cool_down=cool_down, repeats=repeats
    )
    given_rates = parse_rates(rates)
    check_arrivals(given_rates or (), chosen.duration)
    at_rate = check_scale_rate(scale_rate, given_rates)
    scale, arriving = check_scale(slo_scale), parse_traffic(traffic)
    # Recorded samples may be of any model: what is known of the configured one may not fit them.
    fits = simulated is None or settings.algorithm.evidence is not None
    learned = evidence_of(settings) if fits else None
    known = all_systems(settings.allocator.rule, settings.allocator.wave, evidence=learned)
    console = Console(stderr=as_json)
    if simulated is not None:
        virtual = open_simulation(
            simulated,
            traces or (),
            replicas,
            slo_class,
            settings,
            known[0],
            chosen,
            chats,
            learned,
        )
        known = tuple(each for each in known if can_simulate(each, settings.ranking))
        questions = virtual.suite
        if duration is None and warm_up is None and cool_down is None:
            chosen = virtual.fitted(chosen)
    elif traces or replicas != 1 or slo_class != "level":
        raise ConfigError("--traces, --replicas and --slo-class: only with --simulated")
    else:
        virtual, questions = None, load_suite(suite, limit=limit)
    benchmark = Benchmark(
        systems=tuple(choose_systems(known, system or chosen.systems)),
        suite=questions,
        traffic=arriving,
        profile=chosen,
        scale=scale,
        rates=given_rates,
        scale_rate=at_rate,
        chats=chats,
        seed=settings.algorithm.seed or 0,
    )
    report = run(
        bench_and_show(benchmark, settings, known[0], traffic, virtual, out, fresh, console)
    )
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    if report.failed:
        console.print(f"the engine failed {report.failed} queries; see {out}", style="red")
        raise typer.Exit(1)


def _with_places(settings: Config) -> Config:
    """The configuration with a batch that fits few cores, where it does not say.

    Raises:
        ConfigError: if the engine is a recording.
    """
    from dynasor.bench.online_profile import PLACES
    from dynasor.errors import ConfigError

    if settings.engine.kind == "replay":
        raise ConfigError("--engine replay: a recording has no load; use vllm or openai")
    if "max_running" in settings.engine.model_fields_set:
        return settings
    engine = settings.engine.model_copy(update={"max_running": PLACES})
    return settings.model_copy(update={"engine": engine})
