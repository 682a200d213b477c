"""`dynasor tune`: from what is promised to the settings that keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import ConfigOption, JsonOption, SamplesOption, overrides

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.config import Config
    from dynasor.slo.prediction import Problem
    from dynasor.slo.tune import Tuned

SloTracesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--traces",
        help="Recorded samples: FILE for all classes, or CLASS=FILE; may be given several times.",
    ),
]
EngineFileOption = Annotated[
    Path, typer.Option("--engine-times", help="What `dynasor calibrate --out FILE` measured.")
]
RateOption = Annotated[
    float | None,
    typer.Option("--rate", help="Queries a second, all classes.", show_default="slo.rate"),
]
TrafficOption = Annotated[
    str, typer.Option("--traffic", help="poisson, gamma:CV (bursts), or trace:FILE of times.")
]
ArrivalsOption = Annotated[
    int,
    typer.Option(
        "--arrivals", min=20, max=100_000, help="Queries of a simulated run that count, at least."
    ),
]


def tune(
    config: ConfigOption = None,
    traces: SloTracesOption = None,
    engine_times: EngineFileOption = Path("engine.json"),
    rate: RateOption = None,
    replicas: Annotated[
        str, typer.Option("--replicas", help="Engines, or a range such as 1-8: as few as will do.")
    ] = "1",
    trials: Annotated[
        int,
        typer.Option("--trials", min=4, max=10_000, help="Plans that the search tries, in all."),
    ] = 80,
    family: Annotated[
        list[str] | None,
        typer.Option(
            "--family",
            help="Stop rules to search: default, leader-change, adaptive-consistency, fixed; may be "
            "given several times.",
            show_default="all",
        ),
    ] = None,
    samples: SamplesOption = None,
    traffic: TrafficOption = "poisson",
    arrivals: ArrivalsOption = 400,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of splits, search and runs.")] = 0,
    out: Annotated[
        Path,
        typer.Option("--out", help="For results and search; the same command goes on there."),
    ] = Path("runs/tune"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw an earlier search in --out away.")
    ] = False,
    in_words: Annotated[
        bool, typer.Option("--explain", help="Tell in words what was chosen and why.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the cheapest settings that keep what the slo section promises, with a guarantee on the loss.

    Needs three things: what you promise, in the slo section of --config (epsilon: how many answers may
    differ from the full budget's; latency; rate); queries like those to come, each recorded with the
    full budget (`dynasor record`); and how fast the engine is (`dynasor calibrate`). Nothing runs on the
    engine.

    Writes to --out: tuned.toml, for `dynasor serve --config` and `dynasor bench --config`;
    calibration.json, what was certified; pareto.png, all that was tried; tune.json. A promise that no
    setting keeps is refused with exit code 2, naming the part and by how much. Ctrl-C keeps what was
    tried: the same command goes on.

    Example: dynasor tune --config promise.toml --traces samples.jsonl --engine-times engine.json
    """
    from rich.console import Console

    from dynasor.config import load_config
    from dynasor.slo.tuned_config import text_to_fill

    given = overrides(samples=samples)
    given["slo"] = {"rate": rate}
    settings = load_config(config, given)
    text = text_to_fill(config)  # now: it may be edited while the search runs
    console = Console(stderr=as_json)
    problem, tuned, model = _tune(
        settings,
        traces or [],
        engine_times,
        replicas,
        trials,
        family,
        traffic,
        arrivals,
        seed,
        out,
        fresh,
        console,
    )
    values = _write(out, text, settings, tuned, problem, model)
    if as_json:
        typer.echo(json.dumps(values))
        return
    _print(tuned, problem, console)
    if in_words:
        from dynasor.slo.explain import explain

        for line in explain(tuned, problem):
            console.print(line, markup=False, highlight=False)
    console.print(
        f"use it: dynasor serve --config {out / 'tuned.toml'}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _tune(
    settings: Config,
    traces: list[str],
    engine_times: Path,
    replicas: str,
    trials: int,
    families: list[str] | None,
    traffic: str,
    arrivals: int,
    seed: int,
    out: Path,
    fresh: bool,
    console: Console,
) -> tuple[Problem, Tuned, str]:
    """Read, search, certify and choose; also the name of the engine's model."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from dynasor.config import NO_RANKING
    from dynasor.engines.calibration import Calibration
    from dynasor.slo.open_problem import fingerprint, problem_of
    from dynasor.slo.recorded_classes import classes_of, trace_files
    from dynasor.slo.search import search
    from dynasor.slo.space import FAMILIES, space_of
    from dynasor.slo.tune import tune

    _check_full_budget(settings)
    engine = Calibration.read(engine_times)
    classes = classes_of(settings, traces)
    space = space_of(
        families or list(FAMILIES),
        full_samples=settings.algorithm.samples,
        most_places=engine.max_running,
        can_rank=settings.ranking.model != NO_RANKING,
        replicas=_range(replicas),
    )
    study = _study(out, fresh)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console,
        transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("search", total=trials)

        def tell(text: str) -> None:
            progress.update(task, description=text)

        problem = problem_of(settings, engine, classes, space, traffic, counted=arrivals, seed=seed)
        files = [engine_times, *trace_files(settings, traces)]
        tried = search(
            problem,
            space,
            study,
            trials=trials,
            seed=seed,
            describes=fingerprint(settings, files, space, traffic, arrivals, seed),
            progress=lambda done, of: progress.update(task, completed=done, total=of),
        )
        tuned = tune(problem, tried, progress=tell)
    return problem, tuned, engine.model


def _check_full_budget(settings: Config) -> None:
    """See that a tuned configuration is not tuned again against the samples that were chosen."""
    from dynasor.errors import ConfigError, DataError
    from dynasor.slo.calibration_set import CalibrationSet

    if settings.slo.calibration is None:
        return
    try:
        known = CalibrationSet.load(Path(settings.slo.calibration))
    except DataError:
        return  # it is about to be made anew
    full = max(each.full_samples for each in known.classes.values())
    if settings.algorithm.samples < full:
        raise ConfigError(
            f"algorithm.samples = {settings.algorithm.samples} is what an earlier `dynasor tune` chose; "
            f"its full budget was {full}: give --samples {full} to tune against that again"
        )


def _range(text: str) -> tuple[int, int]:
    """`2` or `1-8`."""
    from dynasor.errors import ConfigError

    least, _, most = text.partition("-")
    try:
        return int(least), int(most or least)
    except ValueError:
        raise ConfigError(f"--replicas {text}: give a number, or a range such as 1-8") from None


def _study(out: Path, fresh: bool) -> Path:
    """The file of the search, in a folder that is there."""
    from dynasor.errors import RunError

    study = out / "study.db"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if fresh:
            study.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"{out}: cannot be written ({error.strerror}); choose another --out"
        ) from None
    return study


def _write(
    out: Path, text: str, settings: Config, tuned: Tuned, problem: Problem, model: str
) -> dict[str, object]:
    """All files; also what `--json` prints."""
    from dynasor.errors import RunError
    from dynasor.slo.explain import to_json
    from dynasor.slo.pareto_plot import save_pareto
    from dynasor.slo.tuned_config import calibration_set, write_config
    from dynasor.whole_file import replace_text

    calibration = out / "calibration.json"
    calibration_set(tuned, problem, model).save(calibration)
    write_config(out / "tuned.toml", text, settings, tuned, problem, calibration)
    values = to_json(tuned, problem)
    try:
        save_pareto(tuned, problem, out / "pareto.png")
        replace_text(out / "tune.json", json.dumps(values, indent=1) + "\n")
    except OSError as error:
        raise RunError(
            f"{out}: cannot be written ({error.strerror}); make room, then run the same command again, "
            "which will not search anew"
        ) from None
    return values


def _print(tuned: Tuned, problem: Problem, console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from dynasor.slo.explain import cut_short, not_reached
    from dynasor.slo.refusal import too_few, words

    console.print(words(tuned.plan), style="bold", markup=False, highlight=False)
    for name, promise in problem.promises.items():
        guarantee, chosen = tuned.guarantees[name], tuned.chosen(name)
        table = Table(
            title=f"class {name}: at most {100 * (promise.epsilon or 0):g} points lost, "
            f"{guarantee.queries} queries calibrated, {problem.rate:g} queries a second",
            title_justify="left",
            box=SIMPLE_HEAD,
        )
        for heading in ("setting", "tokens", "loss", "bound", "p90, s", ""):
            table.add_column(
                heading,
                justify="left" if heading in ("setting", "") else "right",
                no_wrap=heading in ("setting", "tokens", "p90, s"),
                overflow="fold",  # a narrow terminal takes more lines, and no letters
            )
        rows = [(chosen, tuned.expected[name].latency.percentile(90), "chosen")]
        neighbours = [each for each in tuned.neighbours if each.group == name]
        rows += [(each.tested, each.latency, each.fate) for each in neighbours]
        for tested, seconds, fate in sorted(rows, key=lambda row: row[0].figures.tokens):
            figures = tested.figures
            table.add_row(
                f"{tested.setting.rule}, {tested.setting.samples}, wave {tested.setting.wave}",
                f"{figures.tokens:,.0f}",
                f"{100 * figures.loss:.2f}",
                f"{100 * figures.bound:.2f}",
                f"{seconds:.3g}",
                fate,
                style="bold" if tested is chosen else None,
            )
        console.print(table)
        console.print(
            "loss and its bound in points; the bound is at the promised confidence, of each alone",
            highlight=False,
        )
        if (note := not_reached(neighbours)) is not None:
            console.print(note, highlight=False)
        if not guarantee.enough:
            console.print(too_few(name, promise, guarantee), style="yellow", highlight=False)
        if promise.deadline is not None:
            console.print(cut_short(promise.deadline, tuned.expected[name]), highlight=False)
        held = tuned.held[name]
        console.print(
            f"held out, {len(problem.splits[name].held)} queries: {100 * held.loss:.2f} points, "
            f"{held.tokens:,.0f} tokens, p90 {held.latency.percentile(90):.3g} s",
            highlight=False,
        )
