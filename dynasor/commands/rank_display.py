"""What is shown of a ranker that was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


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
