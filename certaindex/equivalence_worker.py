"""The process that compares answers with math-verify; started by `certaindex.equivalence_process`.

Its one argument is the process id of its parent. It writes `"ready"`, then reads lines of JSON
`{"new": text, "others": [texts], "deadline": seconds}` and answers each of the others in turn with a
line `true` or `false`, up to the first `true`. Whatever a comparison does to it, the parent goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from certaindex.comparison import decide

MEMORY_BYTES = 2 << 30
"""Address space: math-verify and sympy need half a gigabyte, a tower of powers all there is."""
GRACE = 5.0
"""Seconds after the deadline at which a comparison ends this process, if nobody else did."""


def main() -> None:
    """Serve until standard input ends, which it does when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    replies = sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints may look like a verdict
    import math_verify  # after the limits, which hold for its imports too

    def leaf(a: str, b: str) -> bool:
        return _verified(math_verify, a, b) or _verified(math_verify, b, a)

    leaf(r"\frac{x}{2}+1", r"\sqrt{2}")  # imports what is imported late
    print(json.dumps("ready"), file=replies, flush=True)
    parent = int(sys.argv[1])
    for line in sys.stdin:
        if os.getppid() != parent:
            return
        request = json.loads(line)
        for other in request["others"]:
            # In its default action the alarm ends the process even inside a C function.
            signal.setitimer(signal.ITIMER_REAL, request["deadline"] + GRACE)
            verdict = False
            # Anything may come out of a parser that is fed hostile text.
            with contextlib.suppress(Exception, RecursionError, MemoryError):
                verdict = decide(request["new"], other, leaf) is True
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps(verdict), file=replies, flush=True)
            if verdict:
                break


def _verified(math_verify: Any, gold: str, target: str) -> bool:
    """What math-verify says; it treats its two sides differently. Our deadline replaces its own."""
    first = math_verify.parse(f"${gold}$", parsing_timeout=None)
    second = math_verify.parse(f"${target}$", parsing_timeout=None)
    return bool(first and second and math_verify.verify(first, second, timeout_seconds=None))


if __name__ == "__main__":
    main()
