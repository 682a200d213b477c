"""The `dynasor` command.

Exit codes: 0 all went well, 1 some queries failed, 2 the input or a setting is wrong or the engine
cannot serve, 130 stopped by Ctrl-C (what was finished is kept).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dynasor.commands.bench import bench
from dynasor.commands.bench_deprivation import bench_deprivation
from dynasor.commands.bench_online import bench_online
from dynasor.commands.calibrate import calibrate
from dynasor.commands.capacity import capacity
from dynasor.commands.evidence import evidence
from dynasor.commands.options import (
    BaseUrlOption,
    ConfigOption,
    EngineOption,
    MaxTokensOption,
    ModelOption,
    SamplesOption,
    TuneOption,
    overrides,
)
from dynasor.commands.rank_blend import rank_blend
from dynasor.commands.rank_build_data import rank_build_data
from dynasor.commands.rank_eval import rank_eval
from dynasor.commands.rank_probe import rank_probe
from dynasor.commands.rank_score import rank_score
from dynasor.commands.rank_train import rank_train
from dynasor.commands.rank_train_cheap import rank_train_cheap
from dynasor.commands.record import record
from dynasor.commands.replay import replay
from dynasor.commands.rules import rules
from dynasor.commands.solve import solve
from dynasor.commands.tune import tune
from dynasor.commands.write import write
from dynasor.errors import DynasorError, MissingExtra


class _Commands(TyperGroup):
    """Knows commands of two words, such as `bench online`, besides `bench` itself."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # typer hides these types
        """The longest command that the words begin with."""
        two = " ".join(args[:2])
        if two in self.commands:
            return two, self.commands[two], args[2:]
        return super().resolve_command(ctx, args)


def serve(
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port.", show_default="8000")] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="TOML file of API keys; see `dynasor key`.")
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            "--default-effort",
            help="Effort of requests that do not say: none, minimal, low, medium, high.",
            show_default="none",
        ),
    ] = None,
    samples: SamplesOption = None,
    max_tokens: MaxTokensOption = None,
    tune_cpu: TuneOption = True,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", help="So many engines on this machine, on Ray.", min=1),
    ] = None,
) -> None:
    """Serve an OpenAI-compatible endpoint that reasons until it is certain.

    Example: dynasor serve --port 8000, then any OpenAI client with base_url
    http://127.0.0.1:8000/v1 and model `embedded:self-consistency`. The live page is at
    http://127.0.0.1:8000/.
    """
    from dynasor.config import Config, load_config

    given = overrides(
        engine=engine,
        model=model,
        base_url=base_url,
        samples=samples,
        max_tokens=max_tokens,
        tune_cpu=tune_cpu,
    )
    given["server"] = {
        "host": host,
        "port": port,
        "keys": str(keys) if keys else None,
        "default_effort": effort,
    }
    if replicas is not None:
        given["cluster"] = {"min_replicas": replicas, "max_replicas": replicas}

    def load() -> Config:
        return load_config(config, given)

    if replicas is None:
        _serving("serving.server").run_server(load(), load)
    else:
        _serving("serving.ray_command").serve_here(load())


def deploy(
    config: ConfigOption = None,
    address: Annotated[
        str, typer.Option("--address", help="Of the Ray cluster; `auto`: this machine's.")
    ] = "auto",
    replicas: Annotated[
        int | None, typer.Option("--replicas", help="Engines, at least.", min=1)
    ] = None,
    max_replicas: Annotated[
        int | None, typer.Option("--max-replicas", help="Engines, at most.", min=1)
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it off again, drained.")] = False,
) -> None:
    """Put the endpoint on a Ray cluster: engine replicas behind one address.

    Example: ray start --head, then dynasor deploy --config dynasor.toml --replicas 2
    --max-replicas 8. The same configuration as `dynasor serve`; see docs/replicas.md.
    """
    from dynasor.config import load_config

    bounds = {"min_replicas": replicas, "max_replicas": max_replicas}
    settings = load_config(config, {"cluster": bounds})
    _serving("serving.ray_command").deploy_to(settings, address, remove=remove)


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is; letters, digits, . _ @ -")],
    admin: Annotated[bool, typer.Option("--admin", help="May see the live page.")] = False,
) -> None:
    """Make an API key: the key itself on standard error, its entry for the key file on output.

    Example: dynasor key alice >> keys.toml
    """
    from dynasor.errors import ConfigError

    module = _serving("serving.keys")
    secret = module.new_key()
    try:
        entry = module.Key(name=name, sha256=module.hash_of(secret), admin=admin)
    except ValueError:
        raise ConfigError(f"NAME = {name!r}: 1 to 64 letters, digits, . _ @ -") from None
    typer.echo(f"the key, which is shown only now: {secret}", err=True)
    lines = [f'name = "{entry.name}"', f'sha256 = "{entry.sha256}"']
    typer.echo("\n".join(["[[key]]", *lines, *(["admin = true"] if admin else []), ""]))


def _serving(name: str) -> Any:
    """A module of the server.

    Raises:
        MissingExtra: if what it needs is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        extra = "serve,ray" if error.name == "ray" else "serve"
        raise MissingExtra(
            f"{error.name} is not installed: pip install 'dynasor-llm[{extra}]'"
        ) from None


app = typer.Typer(
    name="dynasor",
    cls=_Commands,
    help="Spend compute on the questions that need it: reasoning queries with certainty-guided "
    "stopping, on vLLM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(solve)
app.command()(write)
app.command()(bench)
app.command("bench online")(bench_online)
app.command("bench deprivation")(bench_deprivation)
app.command()(record)
app.command()(replay)
app.command()(rules)
app.command()(evidence)
app.command()(calibrate)
app.command()(tune)
app.command()(capacity)
app.command()(serve)
app.command()(deploy)
app.command()(key)

rank = typer.Typer(
    help="Predict which prompts get long answers: data, training, evaluation, scores.",
    no_args_is_help=True,
)
rank.command("build-data")(rank_build_data)
rank.command("train-cheap")(rank_train_cheap)
rank.command("eval")(rank_eval)
rank.command("score")(rank_score)
rank.command("train")(rank_train)
rank.command("blend")(rank_blend)
rank.command("probe")(rank_probe)
app.add_typer(rank, name="rank")


def _version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(version("dynasor-llm"))
        except PackageNotFoundError:
            typer.echo("not installed")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors that a user can mend become one line."""
    try:
        app()
    except DynasorError as error:
        typer.echo(f"dynasor: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("dynasor: stopped", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
