"""Prompts as vLLM takes them: token ids, by the model's chat template for messages."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from algorithms.program import Prompt

_REMEMBERED = 4096  # prompts


class RenderedPrompts:
    """Token ids of the prompts that were used last; siblings share one rendering."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, list[int]] = OrderedDict()

    def tokens(self, tokenizer: Any, prompt: Prompt, prefix: str) -> list[int]:
        """Token ids of a prompt and of what the answer is to begin with.

        Raises:
            ValueError: if the model has no chat template and is asked with messages.
        """
        key = json.dumps([prompt, prefix])
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        if isinstance(prompt, str):
            tokens: list[int] = tokenizer.encode(prompt + prefix)
        else:
            if not getattr(tokenizer, "chat_template", None):
                raise ValueError("the model has no chat template; ask it with a text, not messages")
            text = tokenizer.apply_chat_template(
                list(prompt), tokenize=False, add_generation_prompt=True
            )
            tokens = tokenizer.encode(text + prefix, add_special_tokens=False)
        self._known[key] = tokens
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return tokens
