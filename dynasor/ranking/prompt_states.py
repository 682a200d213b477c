"""Hidden states of prompts in a pretrained model as it comes.

What a model makes of a problem tells how long the work on it will be, and tells it best past the middle
of its layers. A decoder has seen the whole prompt at its last token alone, which with a chat model is
that where its answer would begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dynasor.errors import ConfigError
from dynasor.ranking.backbone import (
    DEFAULT_BACKBONE,
    bfloat16_is_fast,
    fingerprint,
    layers_of,
    load_backbone,
)
from dynasor.ranking.pooling import check_pooling, pool
from dynasor.ranking.prompt_window import PromptWindow, collate, in_batches

DEPTHS = (0.5, 0.65, 0.8)
"""Layers whose states are read, as shares of all."""
LARGEST = 6e4
"""States beyond are cut to it: float16 holds no more."""


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Which states are read.

    Attributes:
        backbone: a name for `load_backbone`.
        pooling: `mean` of the states of a prompt, or the `last` one (for decoders).
        window: tokens of a prompt that are read.
    """

    backbone: str = DEFAULT_BACKBONE
    pooling: str = "mean"
    window: int = 256

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        if not isinstance(self.window, int) or self.window < 8:
            raise ConfigError(f"window must be a whole number from 8, not {self.window!r}")


class StateReader:
    """Reads prompts.

    Args:
        settings: which states.
        device: where the model computes.

    Attributes:
        size: numbers that a prompt gives.
        licence: of the backbone.

    Raises:
        ConfigError: if the backbone reads fewer tokens than the window has.
        DataError: if the backbone cannot be read.
        MissingExtra: if a package is not there.
    """

    def __init__(self, settings: StateSettings, device: str = "cpu") -> None:
        backbone = load_backbone(settings.backbone, dtype="auto")
        backbone.check_window(settings.window)
        self._model = backbone.model.eval()
        self.weights = fingerprint(self._model.named_parameters())
        fast = device == "cuda" or bfloat16_is_fast()
        self._model.to(device, torch.bfloat16 if fast else torch.float32)
        self._device, self._pooling = device, settings.pooling
        self._window = PromptWindow(backbone.tokenizer, backbone.ends, settings.window)
        count = len(layers_of(self._model))
        self._layers = [round(depth * count) for depth in DEPTHS]
        self.size = backbone.hidden_size * len(self._layers)
        self.licence = backbone.licence

    @torch.inference_mode()
    def read(self, prompts: Sequence[str]) -> NDArray[np.float16]:
        """(prompts, size) pooled states of each layer, one after the other."""
        windows = self._window.cut(prompts)
        states = np.empty((len(prompts), self.size), np.float16)
        for places in in_batches(windows):
            ids, mask, _ = collate([windows[place] for place in places])
            ids, mask = ids.to(self._device), mask.to(self._device)
            found = self._model(
                input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
            )
            pooled = [
                pool(found.hidden_states[layer].float(), mask, self._pooling)
                for layer in self._layers
            ]
            together = torch.cat(pooled, dim=-1).clamp(-LARGEST, LARGEST)
            states[places] = together.cpu().numpy()
        return states
