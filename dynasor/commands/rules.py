"""`dynasor rules`: the stop rules and what each means."""

from __future__ import annotations

import json

import typer

from dynasor.commands.options import JsonOption


def rules(as_json: JsonOption = False) -> None:
    """List the stop rules, their parameters and where they come from."""
    from rich.console import Console
    from rich.table import Table

    from certaindex.stopping import describe_rules

    rows = describe_rules()
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    table = Table(title="Stop rules", title_justify="left")
    table.add_column("rule", overflow="fold")
    table.add_column("meaning")
    table.add_column("paper")
    for row in rows:
        table.add_row(row.syntax, row.meaning, row.paper)
    console = Console()
    console.print(table)
    console.print(
        "A rule's text is NAME[:VALUE][,PARAMETER=VALUE]...; +hopeless also stops the hopeless."
    )
