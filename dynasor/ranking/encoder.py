"""The learned ranker: a pretrained model with a small head that gives each prompt a score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dynasor.errors import ConfigError, DataError
from dynasor.ranking.backbone import (
    DEFAULT_BACKBONE,
    Backbone,
    bfloat16_is_fast,
    fingerprint,
    layers_of,
    load_backbone,
)
from dynasor.ranking.losses import read_scores
from dynasor.ranking.model_folder import read_card
from dynasor.ranking.pooling import check_pooling, pool
from dynasor.ranking.prompt_shape import SHAPE_SIZE
from dynasor.ranking.prompt_window import Batch, PromptWindow, collate, in_batches

WEIGHTS = "tuned.safetensors"
HEAD_SIZE, DROPOUT = 256, 0.2
LIMIT = 5.0
"""Features further than so many standard deviations from the mean are taken for that far."""


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What a learned ranker is built of.

    Attributes:
        backbone: a name for `load_backbone`.
        pooling: how the hidden states of a prompt become one: their `mean`, or the `last` one, which
            in a decoder is the only one that has seen the whole prompt.
        window: tokens of a prompt that are read.
        tuned_layers: uppermost layers of the backbone that are trained; the rest stays as it is.
        width: numbers that the head gives.
    """

    backbone: str = DEFAULT_BACKBONE
    pooling: str = "mean"
    window: int = 96
    tuned_layers: int = 3
    width: int = 1

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        for name, least in (("window", 8), ("tuned_layers", 0), ("width", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number from {least}, not {value!r}")


class LengthEncoder(nn.Module):
    """Backbone, pooling, and a head of two layers that also sees the prompt's shape.

    The middle of a backbone says more of lengths than its end, which was trained for other things, so
    the head sees the hidden states below the tuned layers too. Only the head and the uppermost layers
    require gradients.
    """

    def __init__(self, backbone: Backbone, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone.model
        backbone.check_window(settings.window)
        self.backbone.requires_grad_(False)
        self._layers = list(layers_of(self.backbone))
        for layer in self.tuned_layers:
            layer.requires_grad_(True)
        features = 2 * backbone.hidden_size + SHAPE_SIZE
        self.centre = nn.Parameter(torch.zeros(features), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(features), requires_grad=False)
        self.mix = nn.Linear(features, HEAD_SIZE)
        self.out = nn.Linear(HEAD_SIZE, settings.width)

    def forward(self, batch: Batch) -> Tensor:
        """(prompts, width) float32 outputs where the model is; `read_scores` makes scores of them."""
        return self.head(self.features(batch))

    def head(self, features: Tensor) -> Tensor:
        """(prompts, width) outputs of (prompts, features) features."""
        seen = ((features - self.centre) / self.scale).clamp(-LIMIT, LIMIT)
        inner = functional.gelu(self.mix(functional.dropout(seen, DROPOUT, self.training)))
        outputs: Tensor = self.out(functional.dropout(inner, DROPOUT, self.training))
        return outputs

    def features(self, batch: Batch) -> Tensor:
        """(prompts, features): what goes into the tuned layers, what comes out, and the shape."""
        ids, mask, shape = (field.to(self.out.weight.device) for field in batch)
        found = self.backbone(
            input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
        )
        kept = found.hidden_states[len(self._layers) - len(self.tuned_layers)]
        states = (kept.float(), found.last_hidden_state.float())
        pooled = [pool(hidden, mask, self.settings.pooling) for hidden in states]
        return torch.cat([*pooled, shape], dim=-1)

    @property
    def tuned_layers(self) -> list[nn.Module]:
        """The layers of the backbone that are trained, lowest first."""
        return self._layers[max(0, len(self._layers) - self.settings.tuned_layers) :]

    @torch.no_grad()
    def fit_scale(self, batches: Iterable[Batch]) -> None:
        """Take centre and scale of the features from prompts to learn from, before training."""
        features = torch.cat([self.features(batch) for batch in batches])
        self.centre.copy_(features.mean(0))
        self.scale.copy_(features.std(0, correction=0) + 1e-3)

    def tuned(self) -> dict[str, Tensor]:
        """Name -> tensor of all that is not the backbone as it came."""
        return {
            name: value.detach()
            for name, value in self.named_parameters()
            if value.requires_grad or not name.startswith("backbone.")
        }

    def kept(self) -> dict[str, Tensor]:
        """Name -> tensor of all that is the backbone as it came."""
        tuned = self.tuned()
        return {name: p.detach() for name, p in self.named_parameters() if name not in tuned}


class EncoderRanker:
    """A ranker with a trained `LengthEncoder`; see `Ranker`.

    Prompts are scored in batches of about equal length. One without a word, and one whose score is not
    a number, get the neutral score.

    Args:
        model: trained.
        window: cuts prompts for it.
        neutral: the score of a prompt that says nothing.
        name: what it is called in tables and logs.
    """

    def __init__(
        self,
        model: LengthEncoder,
        window: PromptWindow,
        neutral: float = 0.0,
        name: str = "encoder",
    ) -> None:
        self.model = model.eval()
        self.window = window
        self.neutral = neutral
        self.name = name

    def score(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """One finite score a prompt, shape `(len(prompts),)`, higher for longer answers."""
        scores = np.full(len(prompts), self.neutral)
        asked = [number for number, prompt in enumerate(prompts) if prompt.strip()]
        windows = self.window.cut([prompts[number] for number in asked]) if asked else []
        with torch.inference_mode():
            for places in in_batches(windows):
                outputs = self.model(collate([windows[place] for place in places]))
                scores[[asked[place] for place in places]] = (
                    read_scores(outputs).double().cpu().numpy()
                )
        scores[~np.isfinite(scores)] = self.neutral
        return scores

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the tuned weights, matrices in bfloat16; returns the card's field `encoder`."""
        from safetensors.torch import save_file

        new = folder / f"{WEIGHTS}.new"
        tuned = self.model.tuned()
        # Vectors are few, and the scale of features does not bear to be rounded.
        small = {
            name: value.bfloat16() if value.ndim > 1 else value for name, value in tuned.items()
        }
        save_file({name: value.cpu().contiguous() for name, value in small.items()}, new)
        new.replace(folder / WEIGHTS)
        return {
            "settings": asdict(self.model.settings),
            "neutral": self.neutral,
            "kept_weights": fingerprint(self.model.kept().items()),
        }

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The ranker of a folder with a card, its backbone in bfloat16 where that is faster.

        Raises:
            DataError: if card or weights are damaged, or those of another backbone.
            MissingExtra: if a package is not there.
        """
        card = read_card(folder)
        ranker = cls.restore(folder, card.get("encoder"))
        ranker.name = card["name"]
        if bfloat16_is_fast():
            ranker.model.backbone.bfloat16()
        return ranker

    @classmethod
    def restore(cls, folder: Path, fields: Any) -> Self:
        """The ranker that `save` wrote.

        Args:
            folder: where the weights are.
            fields: what `save` returned.

        Raises:
            DataError: if fields or weights are damaged, or those of another backbone.
            MissingExtra: if a package is not there.
        """
        try:
            settings = EncoderSettings(**fields["settings"])
            neutral, kept = float(fields["neutral"]), str(fields["kept_weights"])
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise DataError(
                f"{folder}: its card does not describe an encoder ({error}); train it again"
            ) from None
        model, window = build_encoder(settings)
        if fingerprint(model.kept().items()) != kept:
            raise DataError(
                f"{folder} was trained on another {settings.backbone} than the one that is here; "
                "install that one, or train again"
            )
        _load_tuned(model, folder / WEIGHTS)
        return cls(model, window, neutral)


def build_encoder(settings: EncoderSettings) -> tuple[LengthEncoder, PromptWindow]:
    """An encoder with a new head on a pretrained backbone, and what cuts prompts for it.

    Raises:
        ConfigError: if backbone and settings do not fit.
        DataError: if the backbone cannot be read.
        MissingExtra: if a package is not there.
    """
    backbone = load_backbone(settings.backbone)
    window = PromptWindow(backbone.tokenizer, backbone.ends, settings.window)
    return LengthEncoder(backbone, settings), window


def _load_tuned(model: LengthEncoder, file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read ({error}); train the ranker again") from None
    wanted = model.tuned()
    if {name: t.shape for name, t in found.items()} != {
        name: t.shape for name, t in wanted.items()
    }:
        raise DataError(f"{file} holds other weights than its card says; train the ranker again")
    if not all(tensor.isfinite().all() for tensor in found.values()):
        raise DataError(f"{file} holds weights that are not numbers; train the ranker again")
    with torch.no_grad():
        for name, tensor in found.items():
            wanted[name].copy_(tensor)
