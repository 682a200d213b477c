"""Files that are replaced as a whole: whoever reads one finds the old text or the new, never a half."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file in the place of an older one, which stays until the new one is on the disk.

    Raises:
        OSError: if it cannot be written; the older one is whole then.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
