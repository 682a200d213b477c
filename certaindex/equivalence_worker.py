"""The process that compares two answers with math-verify; started by `certaindex.equivalence`.

Reads lines of JSON `{"new": text, "known": [texts]}` and writes a line `true` or `false` for each
known text in turn. Whatever a comparison does to this process, the one that asked goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import signal
import sys

MEMORY_BYTES = 2 << 30
"""Address space: math-verify and sympy need half a gigabyte, a tower of powers all there is."""
SELF_KILL_SECONDS = 10.0
"""A comparison that lasts so long kills this process even if nobody is left to do it."""


def main() -> None:
    """Serve until standard input ends, which it does when the parent dies."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.set_int_max_str_digits(4300)
    logging.disable(logging.CRITICAL)
    import math_verify  # after the limit, which holds for its imports too

    answer = sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints may look like a verdict
    _same(math_verify, "\\frac{x}{2}+1", "\\{1,2\\}")  # imports what is imported late
    print("ready", file=answer, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        for known in question["known"]:
            signal.setitimer(signal.ITIMER_REAL, SELF_KILL_SECONDS)
            verdict = False
            # Anything may come out of a parser that is fed hostile text.
            with contextlib.suppress(Exception, RecursionError, MemoryError):
                verdict = _same(math_verify, question["new"], known)
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps(verdict), file=answer, flush=True)


def _same(math_verify: object, a: str, b: str) -> bool:
    """Equal either way round: math-verify treats its two sides differently."""
    parse = getattr(math_verify, "parse")  # noqa: B009 - the module has no types
    verify = getattr(math_verify, "verify")  # noqa: B009
    first = parse(f"${a}$", parsing_timeout=None)
    second = parse(f"${b}$", parsing_timeout=None)
    if not first or not second:
        return False
    return bool(
        verify(first, second, timeout_seconds=None) or verify(second, first, timeout_seconds=None)
    )


if __name__ == "__main__":
    main()
