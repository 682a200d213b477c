"""`dynasor rank score`: the scores of prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

_LONGEST_LINE = 16 << 20
_BATCH = 64


def rank_score(
    prompts: Annotated[
        Path | None,
        typer.Argument(
            help="A prompt a line; of a .jsonl file the field `prompt`, a text or chat messages.",
            show_default="standard input",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Folder of a trained ranker, or blend, encoder, cheap, or prompt-length.",
            show_default="blend",
        ),
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Lines of standard input are JSON with `prompt`.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object for each prompt: line and score.")
    ] = False,
) -> None:
    """Score prompts: the higher, the longer the answer is expected to be.

    Prints a score a line, in the order of the prompts. Only the order of the scores of one model means
    something. Of a long prompt a ranker reads the beginning and the end; an empty line is an empty
    prompt, whose score is in the middle.

    Examples:

        echo 'Write a novel about an owl.' | dynasor rank score

        dynasor rank score questions.jsonl --model runs/my-ranker --json
    """
    from dynasor.errors import DataError
    from dynasor.ranking.metrics import checked_scores
    from dynasor.ranking.model_folder import DEFAULT, load_ranker

    ranker = load_ranker(model or DEFAULT)
    jsonl = jsonl or (prompts is not None and prompts.suffix == ".jsonl")
    try:
        opened = nullcontext(sys.stdin.buffer) if prompts is None else prompts.open("rb")
    except OSError as error:
        raise DataError(f"{prompts}: cannot be read ({error}); check the path") from None
    with opened as file:
        lines = _prompts(file, str(prompts or "standard input"), jsonl)
        # Who types sees each score at once.
        size = 1 if prompts is None and sys.stdin.isatty() else _BATCH
        number = 0
        while batch := list(islice(lines, size)):
            for score in checked_scores(ranker.score(batch), len(batch), ranker.name):
                number += 1
                row = {"line": number, "score": float(score)}
                typer.echo(json.dumps(row) if as_json else f"{score:.6f}")


def _prompts(file: BinaryIO, name: str, jsonl: bool) -> Iterator[str]:
    from dynasor.errors import DataError

    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise DataError(f"{name}, line {number}: longer than {_LONGEST_LINE} bytes; shorten it")
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        yield _prompt_of_json(text, f"{name}, line {number}") if jsonl else text


def _prompt_of_json(text: str, where: str) -> str:
    from dynasor.errors import DataError
    from dynasor.ranking.prompt_text import prompt_text

    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); mend or remove it") from None
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(isinstance(each, dict) for each in prompt):
        return prompt_text(prompt)
    raise DataError(
        f"{where}: field 'prompt' must be a text or a list of chat messages, not {prompt!r:.80}"
    )
