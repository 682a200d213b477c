"""How many tokens an answer has, by the tokenizer of the model that gave it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dynasor.errors import DataError, MissingExtra

TokenCount = Callable[[str], int]
OPENAI_ENCODINGS = ("cl100k_base", "o200k_base")
"""Those of ChatGPT (3.5 and 4), and of GPT-4o and later."""


def token_count(tokenizer: str) -> TokenCount:
    """A function that counts the tokens of a text.

    Args:
        tokenizer: `cl100k_base` or `o200k_base` (what ChatGPT's models use; no download), or a model
            folder or file with a `tokenizer.json`.

    Raises:
        DataError: if there is no such tokenizer.
        MissingExtra: if a package is not there.
    """
    return _openai(tokenizer) if tokenizer in OPENAI_ENCODINGS else _from_file(Path(tokenizer))


def _openai(name: str) -> TokenCount:
    try:
        from bpe_openai import get_encoding
    except ImportError:
        raise MissingExtra(
            f"the tokenizer {name} needs one more package: pip install 'dynasor-llm[rank-data]'"
        ) from None
    encoding = get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


def _from_file(path: Path) -> TokenCount:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        known = ", ".join(OPENAI_ENCODINGS)
        raise DataError(
            f"no tokenizer {str(path)!r}; give {known}, or a folder with a tokenizer.json"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra(
            "a tokenizer.json needs one more package: pip install 'dynasor-llm[rank]'"
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise DataError(f"{file}: not a tokenizer ({error})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
