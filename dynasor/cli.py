"""The `dynasor` command.

Exit codes: 0 all went well, 1 some queries failed, 2 the input or a setting is wrong or the engine
cannot serve, 130 stopped by Ctrl-C (what was finished is kept).
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dynasor.commands.bench import bench
from dynasor.commands.bench_deprivation import bench_deprivation
from dynasor.commands.bench_online import bench_online
from dynasor.commands.calibrate import calibrate
from dynasor.commands.evidence import evidence
from dynasor.commands.rank_blend import rank_blend
from dynasor.commands.rank_build_data import rank_build_data
from dynasor.commands.rank_eval import rank_eval
from dynasor.commands.rank_score import rank_score
from dynasor.commands.rank_train import rank_train
from dynasor.commands.rank_train_cheap import rank_train_cheap
from dynasor.commands.record import record
from dynasor.commands.replay import replay
from dynasor.commands.rules import rules
from dynasor.commands.solve import solve
from dynasor.commands.write import write
from dynasor.errors import DynasorError


class _Commands(TyperGroup):
    """Knows commands of two words, such as `bench online`, besides `bench` itself."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # typer hides these types
        """The longest command that the words begin with."""
        two = " ".join(args[:2])
        if two in self.commands:
            return two, self.commands[two], args[2:]
        return super().resolve_command(ctx, args)


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
