"""A tiny encoder with random weights and a vocabulary of a few words, for tests of learned rankers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

WORDS = ["hi", "name", "list", "explain", "write", "an", "essay", "about", "cats", "dogs", "now"]
SHORT, LONG = ("hi", "name", "list"), ("explain", "write", "essay")


def save_tiny_backbone(folder: Path, *, decoder: bool = False, chat: str | None = None) -> Path:
    """A model folder such as `load_backbone` reads.

    Args:
        folder: where to.
        decoder: instead of an encoder.
        chat: template of a chat model.
    """
    # Here, because every worker imports every file of tests, and few make a backbone.
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, OPTConfig, OPTModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if not decoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=words[0], chat_template=chat
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_attention_heads": 2}
    if decoder:
        config = OPTConfig(
            **size,
            ffn_dim=32,
            num_hidden_layers=2,
            word_embed_proj_dim=16,
            max_position_embeddings=64,
        )
        OPTModel(config).save_pretrained(folder)
    else:
        config = BertConfig(
            **size, intermediate_size=32, num_hidden_layers=2, max_position_embeddings=64
        )
        BertModel(config).save_pretrained(folder)
    return folder


def save_tiny_data(folder: Path, *, size: int = 60, equal: bool = False) -> Path:
    """A data folder in which the first word of a prompt tells how long the answer is."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for split, count in (("train", size), ("validation", size // 2), ("test", size // 2)):
        rows = []
        for number in range(count):
            long = bool(draw.random() < 0.5)
            first = draw.choice(LONG if long else SHORT)
            rest = " ".join(draw.choice(WORDS[5:], size=int(draw.integers(1, 12))))
            tokens = int(draw.integers(200, 300) if long else draw.integers(5, 50))
            rows.append(
                {
                    "prompt": f"{first} {rest}",
                    "tokens": 100 if equal else tokens,
                    "conversation": f"{split}{number}",
                    "cut": 0.0 if number % 7 else 1.0,
                }
            )
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    card = {"format": "dynasor rank data", "source": "tiny", "tokenizer": "words"}
    (folder / "card.json").write_text(json.dumps(card))
    return folder
