"""Long texts by AgentWrite: run it on an engine, and keep good ones to train on.

The training format is that of LongWriter-6k (Bai et al., 2024): one JSON object a line with `messages`,
the instruction as the user's and the text as the assistant's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithms.agentwrite import AgentWrite, Care
from algorithms.program import Sampling
from algorithms.writing_plan import Part
from certaindex.length import count_words, length_score
from dynasor.allocator import PerQuery
from dynasor.engines.base import Engine
from dynasor.errors import RunError
from dynasor.observer import Observer
from dynasor.outcome import Outcome
from dynasor.runtime import Runtime

LEAST_SCORE = 80.0
"""Length score (S_l) that a text to train on needs."""
LEAST_DISTINCT = 0.8
"""Share of its sentences that must differ from one another."""
LEAST_PARTS = 2
"""Parts of a plan that was one: a text in one piece was written without."""


@dataclass(frozen=True, slots=True)
class Written:
    """A long text.

    Attributes:
        instruction: what was asked for.
        words: how long it should be.
        plan: its parts.
        texts: of the parts; empty where one came to nothing.
        outcome: what it cost, and how far the plan was kept to (certainty).
    """

    instruction: str
    words: int
    plan: tuple[Part, ...]
    texts: tuple[str, ...]
    outcome: Outcome

    @property
    def text(self) -> str:
        """The whole text."""
        return self.outcome.answer.value or ""

    @property
    def score(self) -> float:
        """Length score S_l of the whole, 0 to 100."""
        return length_score(self.words, count_words(self.text))


async def write_text(
    instruction: str,
    words: int,
    engine: Engine,
    *,
    sampling: Sampling,
    care: Care,
    wave: int = 4,
    observer: Observer | None = None,
) -> Written:
    """Write a text of about `words` words.

    Args:
        instruction: what to write.
        words: how long.
        engine: a started engine.
        sampling: of each request; `max_tokens` is the longest part.
        care: for lengths.
        wave: parts at once, where the plan allows it.
        observer: is told what happens.

    Raises:
        EngineError: if the engine dies.
    """
    from certaindex.rules.never import Never

    program = AgentWrite("text", instruction, words=words, sampling=sampling, care=care)
    runtime = Runtime(engine, PerQuery(Never(), wave), observer=observer)
    outcome = await runtime.solve(program)
    return Written(instruction, words, program.plan, program.texts, outcome)


def why_not_train_on(written: Written) -> str | None:
    """What is wrong with a text as training data; None where nothing is."""
    missing = sum(not text for text in written.texts)
    if written.texts and len(written.texts) < LEAST_PARTS:
        return "it was written without a plan"
    if missing or not written.texts:
        return f"{missing} of {len(written.texts)} parts are missing"
    if written.score < LEAST_SCORE:
        return f"length score {written.score:.0f} is below {LEAST_SCORE:.0f}"
    sentences = [part.strip() for part in written.text.replace("\n", ".").split(".")]
    sentences = [sentence for sentence in sentences if sentence]
    distinct = len(set(sentences)) / len(sentences)
    if distinct < LEAST_DISTINCT:
        return f"only {distinct:.0%} of its sentences differ"
    return None


def training_row(written: Written) -> dict[str, Any]:
    """One line of the training file."""
    return {
        "messages": [
            {"role": "user", "content": written.instruction},
            {"role": "assistant", "content": written.text},
        ]
    }


def append_training_row(path: Path, written: Written) -> None:
    """Add a text to a training file.

    Raises:
        RunError: if the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(training_row(written), ensure_ascii=False) + "\n")
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error.strerror}") from error
