"""Whether a text hedges: signs that an answer asked for too soon is not meant.

The words are those that Dynasor-CoT looks for (Fu et al., 2025). They count as whole words only:
"no" is a hedge, "note" is none.
"""

from __future__ import annotations

import re

HEDGES = ("wait", "hold", "but", "okay", "no", "hmm")

_PATTERN = re.compile(rf"\b(?:{'|'.join(HEDGES)})\b", re.IGNORECASE)


def hedges(text: str) -> bool:
    """Whether one of `HEDGES` is among the words of a text."""
    return _PATTERN.search(text) is not None
