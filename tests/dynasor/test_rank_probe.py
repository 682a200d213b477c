"""Rankers of the hidden states of a pretrained model as it comes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dynasor.cli import app
from dynasor.errors import ConfigError, DataError, RunError
from dynasor.ranking.backbone import load_backbone
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.kernel_ridge import RIDGE, KernelRidge, looks_of
from dynasor.ranking.model_folder import CARD, load_ranker, write_card
from dynasor.ranking.order_metrics import order_metrics
from dynasor.ranking.probe import REGRESSION
from dynasor.ranking.prompt_states import LARGEST, StateReader, StateSettings
from dynasor.ranking.ranker_data import RankerData, read_ranker_data
from dynasor.ranking.train_probe import CHUNK, ProbeTraining, typical_places
from tests.dynasor.conftest import Ended
from tests.dynasor.tiny_backbone import save_tiny_backbone, save_tiny_data

CHAT = "list {{ messages[0]['content'] }} now {% if add_generation_prompt %}name{% endif %}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder and a backbone."""
    place = tmp_path_factory.mktemp("probe")
    return save_tiny_data(place / "data", size=120), save_tiny_backbone(place / "tiny")


def training(
    folders: tuple[Path, Path], out: Path, *, fresh: bool = False, **settings: object
) -> ProbeTraining:
    data, backbone = folders
    chosen = StateSettings(**{"backbone": str(backbone), "window": 32, **settings})
    examples = read_ranker_data(data, later_turns=0, seed=0)
    return ProbeTraining(examples, {"folder": "data"}, out, chosen, fresh=fresh)


def trained(folders: tuple[Path, Path], out: Path, **settings: object) -> dict[str, object]:
    run = training(folders, out, **settings)
    run.read(lambda done: None)
    return run.finish()


@pytest.mark.parametrize("decoder", [False, True])
def test_it_learns_which_prompts_are_long(
    folders: tuple[Path, Path], tmp_path: Path, decoder: bool
) -> None:
    backbone = save_tiny_backbone(tmp_path / "tiny", decoder=decoder)
    pooling = "last" if decoder else "mean"
    card = trained((folders[0], backbone), tmp_path / "out", pooling=pooling)
    assert card["metrics"]["held_out"]["tau"] > 0.5
    assert card["metrics"]["test"]["tau"] > 0.5
    assert card["metrics"]["held_out"]["n"] == 120 + 60
    assert card["backbone"] == {"name": str(backbone), "licence": "not stated"}
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "calibration.json", "card.json", "regression.npz",
    ]  # fmt: skip
    ranker = load_ranker(tmp_path / "out")
    scores = ranker.score(["write an essay about cats", "hi name"])
    assert scores[0] > scores[1]
    tests = read_ranker_data(folders[0], later_turns=0, seed=0).test
    again = ranker.score([each.prompt for each in tests])
    assert order_metrics(again, tests)["tau"] == card["metrics"]["test"]["tau"]


def test_odd_prompts_have_a_finite_score_and_empty_ones_the_neutral_one(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    trained(folders, tmp_path / "out")
    ranker = load_ranker(tmp_path / "out")
    odd = ["", " \n\t", "x" * 1_000_000, "hi " * 300_000, "\ud800", "日本語", "\x00", "<|user|>\n"]
    scores = ranker.score(odd)
    assert np.isfinite(scores).all()
    assert (
        scores[0]
        == scores[1]
        == json.loads((tmp_path / "out" / CARD).read_text())["probe"]["neutral"]
    )
    assert ranker.score([]).shape == (0,)


def test_what_was_read_before_a_kill_is_not_read_again(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    whole = trained(folders, tmp_path / "whole")
    run = training(folders, tmp_path / "part")

    def killed(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.read(killed)
    with (tmp_path / "part" / "training" / "states.f16").open("ab") as file:
        file.write(b"torn")
    rest, seen = training(folders, tmp_path / "part"), list[int]()
    rest.read(seen.append)
    assert seen[0] == CHUNK
    assert seen[-1] == len(rest.examples)
    assert rest.finish()["metrics"] == whole["metrics"]
    files = [tmp_path / name / REGRESSION for name in ("part", "whole")]
    one, other = (np.load(file) for file in files)
    assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_a_folder_is_for_one_probe(folders: tuple[Path, Path], tmp_path: Path) -> None:
    training(folders, tmp_path / "out")
    with pytest.raises(RunError, match="other settings"):
        training(folders, tmp_path / "out", window=16)
    trained(folders, tmp_path / "out")
    with pytest.raises(RunError, match="finished ranker"):
        training(folders, tmp_path / "out")
    training(folders, tmp_path / "out", window=16, fresh=True)


def test_states_of_other_prompts_are_not_taken_for_these(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    data = shutil.copytree(folders[0], tmp_path / "data")
    training((data, folders[1]), tmp_path / "out")
    train = data / "train.jsonl"
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join([*lines[1:], lines[0]]))
    with pytest.raises(RunError, match=r"other settings \(prompts"):
        training((data, folders[1]), tmp_path / "out")


def test_states_that_are_no_numbers_are_one_clear_error(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(folders, tmp_path / "out")
    monkeypatch.setattr(
        StateReader, "read", lambda self, prompts: np.full((len(prompts), self.size), np.nan)
    )
    with pytest.raises(DataError, match="gives states that are no numbers; choose another"):
        run.read(lambda done: None)


def test_states_of_another_model_are_not_taken_for_those_of_this(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    backbone = shutil.copytree(folders[1], tmp_path / "mine")
    training((folders[0], backbone), tmp_path / "out")
    save_tiny_backbone(backbone, decoder=True)
    with pytest.raises(RunError, match=r"other settings \(weights"):
        training((folders[0], backbone), tmp_path / "out")


def test_a_probe_of_another_backbone_or_a_broken_one_is_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    backbone = shutil.copytree(folders[1], tmp_path / "mine")
    trained((folders[0], backbone), tmp_path / "out")
    save_tiny_backbone(tmp_path / "mine", decoder=True)
    with pytest.raises(DataError, match="was made with another"):
        load_ranker(tmp_path / "out")
    card = json.loads((tmp_path / "out" / CARD).read_text())
    np.savez(tmp_path / "out" / REGRESSION, dual=np.zeros(3))
    write_card(tmp_path / "out", "probe", "odd", card)
    with pytest.raises(DataError, match=r"regression.npz: cannot be read.*make the probe again"):
        load_ranker(tmp_path / "out")
    write_card(tmp_path / "out", "probe", "odd", card | {"probe": {"settings": {"depth": 1}}})
    with pytest.raises(DataError, match="does not describe a probe"):
        load_ranker(tmp_path / "out")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pooling": "first"}, "pooling 'first' is unknown; give mean or last"),
        ({"window": 4}, "window must be a whole number from 8"),
        ({"window": 65}, r"window 65 is more than .* reads \(64\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        training(folders, tmp_path / "out", **wrong)


def test_at_most_so_many_examples_are_learned_from(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynasor.ranking.train_probe.MOST", 50)
    run = training(folders, tmp_path / "out")
    whole = read_ranker_data(folders[0], later_turns=0, seed=0)
    assert len(run.examples) == 50
    assert any(each in whole.held_out for each in run.examples)


def test_a_chat_model_reads_a_prompt_as_it_is_asked(tmp_path: Path) -> None:
    place = save_tiny_backbone(tmp_path / "chat", decoder=True, chat=CHAT)
    backbone = load_backbone(str(place))
    words = [[backbone.tokenizer.id_to_token(k) for k in end] for end in backbone.ends]
    assert words == [["list"], ["now", "name"]]
    save_tiny_backbone(tmp_path / "deaf", decoder=True, chat="name")
    with pytest.raises(DataError, match="leaves out what the user says"):
        load_backbone(str(tmp_path / "deaf"))


@pytest.mark.parametrize("decoder", [False, True])
def test_states_do_not_depend_on_the_others_in_the_batch(tmp_path: Path, decoder: bool) -> None:
    place = save_tiny_backbone(tmp_path / "tiny", decoder=decoder)
    reader = StateReader(StateSettings(str(place), "last" if decoder else "mean", 32))
    prompts = ["hi", "write an essay about cats", "explain " * 200, "list dogs now"]
    together = reader.read(prompts)
    assert together.shape == (4, reader.size)
    alone = np.concatenate([reader.read([prompt]) for prompt in prompts])
    assert together == pytest.approx(alone, abs=0.05)  # bfloat16
    assert np.abs(together).max() <= LARGEST


def synthetic(count: int, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Prompts that say nothing, and states that do."""
    draw = np.random.default_rng(seed)
    states = draw.normal(size=(count, 12)).astype(np.float16)
    values = np.tanh(states[:, 0].astype(np.float64)) + 0.1 * draw.normal(size=count)
    return ["hi cats"] * count, states, values - values.mean()


def test_the_regression_sees_what_states_say() -> None:
    prompts, states, values = synthetic(300)
    ridge, held_out = KernelRidge.fit(looks_of(prompts, states), values)
    assert np.corrcoef(held_out, values)[0, 1] > 0.8
    prompts, states, values = synthetic(200, seed=1)
    assert np.corrcoef(ridge.predict(looks_of(prompts, states)), values)[0, 1] > 0.8


def test_held_out_values_are_those_of_a_regression_without_the_prompt() -> None:
    prompts, states, values = synthetic(40)
    prompts = [f"{prompt} " * (1 + number % 7) for number, prompt in enumerate(prompts)]
    seen = looks_of(prompts, states)
    ridge, held_out = KernelRidge.fit(seen, values)
    kernel = ridge._likeness(seen)
    for left in (0, 17, 39):
        rest = np.arange(40) != left
        dual = np.linalg.solve(kernel[np.ix_(rest, rest)] + RIDGE * np.eye(39), values[rest])
        assert held_out[left] == pytest.approx(kernel[left, rest] @ dual)
    assert kernel.diagonal().mean() == pytest.approx(1.0)


def test_prompts_that_are_all_alike_are_foreseen_alike(tmp_path: Path) -> None:
    same = looks_of(["hi"] * 5, np.ones((5, 3), np.float16))
    ridge, _ = KernelRidge.fit(same, np.array([0.2, 0.1, 0.0, -0.1, -0.2]))
    assert ridge.predict(same) == pytest.approx(np.zeros(5), abs=1e-9)
    ridge.save(tmp_path / "it.npz")
    assert np.array_equal(KernelRidge.load(tmp_path / "it.npz").predict(same), ridge.predict(same))


def test_the_place_of_a_prompt_is_that_of_its_typical_length() -> None:
    examples = [
        LengthExample("a", 100.0, "a"),
        LengthExample("b", 300.0, "b", 8, spread=1.5),  # typically 97, and some that ran away
        LengthExample("c", 200.0, "c", cut=1.0),
        LengthExample("d", 150.0, "d"),
    ]
    places = dict(zip("abcd", typical_places(examples), strict=True))
    assert places["b"] < places["a"] < places["d"] < places["c"]


def test_the_command_makes_one_and_the_others_take_it(
    run_here: Callable[..., Ended],
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    data, backbone = folders
    out = tmp_path / "out"
    words = ["rank", "probe", str(data), "--out", str(out), "--backbone", str(backbone)]
    done = run_here(*words, "--window", "32")
    assert done.returncode == 0, done.stderr
    assert "Kendall's tau" in done.stdout
    assert "180 prompts, read by" in done.stdout
    judged = run_here("rank", "eval", str(data / "test.jsonl"), "--model", str(out), "--json")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["tau"] > 0.5
    again = run_here(*words, "--window", "32", "--fresh", "--json")
    assert json.loads(again.stdout)["metrics"]["test"]["tau"] > 0.5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backbone", "nowhere/at all"], "no backbone 'nowhere/at all'"),
        (["--device", "tpu"], "--device tpu"),
        (["--pooling", "first"], "pooling 'first' is unknown"),
    ],
)
def test_what_the_command_cannot_do_is_one_clear_error(
    folders: tuple[Path, Path], tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        app(
            ["rank", "probe", str(folders[0]), "--out", str(tmp_path / "out"), *more],
            standalone_mode=False,
        )


def test_data_of_a_few_prompts_is_enough(folders: tuple[Path, Path], tmp_path: Path) -> None:
    whole = read_ranker_data(folders[0], later_turns=0, seed=0)
    few = RankerData(whole.train[:20], whole.held_out[:10], [])
    run = ProbeTraining(few, {}, tmp_path / "out", StateSettings(str(folders[1]), window=32))
    run.read(lambda done: None)
    assert set(run.finish()["metrics"]) == {"held_out"}
