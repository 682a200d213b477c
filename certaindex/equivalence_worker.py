"""The process in which computer algebra looks at model output; `EquivalenceProcess` starts it.

Run as `python -m certaindex.equivalence_worker PARENT_PID`. One line of JSON a message. It says
`"ready"` once, or `{"error": ...}` and ends. A request is `{"new": str, "others": [str, ...],
"deadline": seconds}`, all strings canonical; the reply is one verdict a line (`true` or `false`) in
the order of `others`, up to and including the first `true`.

It ends when its standard input ends or its parent is gone, kills itself when a comparison takes
much longer than the deadline, and may use at most `MEMORY_BYTES`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import select
import signal
import sys
from typing import Any, TextIO

from certaindex.comparison import decide

MEMORY_BYTES = 1 << 30
"""Address space of the worker. Imports need 60 MiB; ordinary comparisons stay below 150 MiB."""
GRACE_SECONDS = 1.0
"""Beyond the deadline, until the worker kills itself: the parent has its turn first."""
ORPHAN_CHECK_SECONDS = 5.0
"""Between looks at whether the parent still lives (a fork of it may keep our input open)."""

# What people write instead of LaTeX, and the LaTeX for it.
_SPELLINGS = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![A-Za-z\\])sqrt\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])"), r"\\pi "),
)


def main() -> None:
    """Serve comparisons until the input ends."""
    replies = _isolate()
    try:
        leaf = _Algebra()
    except Exception as error:
        _say(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    _say(replies, "ready")
    parent = int(sys.argv[1])
    pending = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], ORPHAN_CHECK_SECONDS)[0]:
            continue
        chunk = os.read(0, 1 << 16)
        if not chunk:
            return
        *requests, pending = (pending + chunk).split(b"\n")
        for request in requests:
            _serve(json.loads(request), leaf, replies)


def _isolate() -> TextIO:
    """Set limits and signals; return the stream of replies, out of reach of stray prints."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even inside C code
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return replies


def _say(replies: TextIO, message: object) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _serve(request: dict[str, Any], leaf: _Algebra, replies: TextIO) -> None:
    for other in request["others"]:
        signal.setitimer(signal.ITIMER_REAL, request["deadline"] + GRACE_SECONDS)
        try:
            verdict = decide(request["new"], other, leaf) is True
        except Exception:  # memory and recursion too
            verdict = False  # whatever the library stumbled over, it did not find them the same
        signal.setitimer(signal.ITIMER_REAL, 0)
        _say(replies, verdict)
        if verdict:
            return


class _Algebra:
    """Equality by math-verify, in either order of gold and target.

    Only its LaTeX reader is used: its reader of plain expressions evaluates Python code.
    """

    def __init__(self) -> None:
        from math_verify import LatexExtractionConfig, parse, verify

        self._parse, self._verify = parse, verify
        self._config = [LatexExtractionConfig(boxed_match_priority=-1)]
        # The first use builds grammars and regular expressions; no comparison should pay for that.
        self(r"\frac{x}{2}+1", r"1+\frac{1}{2}x")
        self(r"\{x,2\sqrt{2}\}", "[0,x)")

    def __call__(self, a: str, b: str) -> bool:
        # math-verify's own timeouts work by SIGALRM with whole seconds; ours is the deadline.
        first, second = self._read(a), self._read(b)
        return any(
            self._verify(gold, target, timeout_seconds=None)
            for gold, target in ((first, second), (second, first))
        )

    def _read(self, text: str) -> list[Any]:
        for pattern, replacement in _SPELLINGS:
            text = pattern.sub(replacement, text)
        parsed: list[Any] = self._parse(f"${text}$", self._config, parsing_timeout=None)
        return parsed


if __name__ == "__main__":
    main()
