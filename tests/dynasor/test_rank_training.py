import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dynasor.errors import ConfigError, DataError, RunError
from dynasor.ranking.encoder import EncoderSettings
from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.losses import LOSSES
from dynasor.ranking.model_folder import load_ranker
from dynasor.ranking.ranker_data import read_ranker_data
from dynasor.ranking.train_ranker import RankerTraining
from dynasor.ranking.training import TrainingPlan
from dynasor.ranking.training_lists import TrainingLists
from tests.dynasor.conftest import Ended
from tests.dynasor.tiny_backbone import save_tiny_backbone, save_tiny_data


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder and a backbone."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("rank")
    return save_tiny_data(place / "data", size=160), save_tiny_backbone(place / "tiny")


def training(
    folders: tuple[Path, Path], out: Path, *, fresh: bool = False, **plan: object
) -> RankerTraining:
    data, backbone = folders
    loss = str(plan.get("loss", "listmle"))
    chosen = TrainingPlan(**{"rate": 0.01, "epochs": 4.0, "list_size": 16, **plan, "loss": loss})
    settings = EncoderSettings(str(backbone), window=32)
    examples = read_ranker_data(data, later_turns=0, seed=0)
    return RankerTraining(examples, {"folder": "data"}, out, settings, chosen, fresh=fresh)


def weights(run: RankerTraining) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.ranker.model.tuned().items()}


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_learns_which_prompts_are_long(
    loss: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = training(folders, tmp_path / "out", loss=loss, epochs=8.0, patience=100)
    run.training.run()
    assert run.training.best is not None
    assert run.training.best.tau > 0.4
    assert run.training.checks[-1].loss < run.training.checks[0].loss


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    whole = training(folders, tmp_path / "whole")
    whole.training.run()
    for stop_at in (3, 17, 31):
        part = training(folders, tmp_path / "part")

        def observe(
            progress: float, loss: float, run: RankerTraining = part, at: int = stop_at
        ) -> None:
            if run.training.step >= at:
                run.training.stop()

        part.training.run(observe)
        assert part.training.step == stop_at
    rest = training(folders, tmp_path / "part")
    rest.training.run()
    assert [c.tau for c in rest.training.checks] == [c.tau for c in whole.training.checks]
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(rest).items())


def test_the_kept_weights_are_those_of_the_best_check(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = training(folders, tmp_path / "out", rate=0.3, epochs=20.0, patience=3)
    run.training.run()
    checks, best = run.training.checks, run.training.best
    assert best is not None
    assert best.tau == max(check.tau for check in checks)
    assert len(checks) - 1 - checks.index(best) == 3 or run.training.progress == 1
    card = run.finish()
    assert card["metrics"]["held_out"]["tau"] == pytest.approx(best.tau, abs=0.03)  # bfloat16


def test_a_finished_folder_is_a_ranker_with_a_calibration(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = training(folders, tmp_path / "out")
    run.training.run()
    card = run.finish()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "calibration.json",
        "card.json",
        "learning_curves.json",
        "learning_curves.png",
        "tuned.safetensors",
    ]
    ranker = load_ranker(tmp_path / "out")
    scores = ranker.score(["write an essay about cats", "hi name", ""])
    assert scores[0] > scores[1]
    fitted = LengthCalibration.load(tmp_path / "out" / "calibration.json")
    assert fitted.quantile(scores[0], 0.5) > fitted.quantile(scores[1], 0.5)
    assert card["backbone"] == {"name": str(folders[1]), "licence": "not stated"}
    assert card["training"]["finished"]
    assert card["data"]["later_turns"] == 0, "there were none"
    with pytest.raises(RunError, match="finished ranker"):
        training(folders, tmp_path / "out")
    training(folders, tmp_path / "out", fresh=True)


def test_what_cannot_be_trained_is_one_clear_error(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"train.jsonl.*no order to predict"):
        read_ranker_data(save_tiny_data(tmp_path / "equal", equal=True), later_turns=0, seed=0)
    with pytest.raises(DataError, match="build-data"):
        read_ranker_data(tmp_path / "nothing", later_turns=0, seed=0)
    training(folders, tmp_path / "out")
    with pytest.raises(RunError, match="other settings"):
        training(folders, tmp_path / "out", seed=5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="other files"):
        training(folders, tmp_path / "other", fresh=True)
    assert (tmp_path / "other" / "thesis.txt").exists()


def test_a_damaged_state_is_told_and_fresh_begins_anew(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    state = tmp_path / "out" / "training" / "state.pt"
    training(folders, tmp_path / "out")
    state.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match="--fresh"):
        training(folders, tmp_path / "out")
    assert training(folders, tmp_path / "out", fresh=True).training.step == 0


def test_a_loss_that_is_no_number_ends_the_training(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = training(folders, tmp_path / "out")
    with torch.no_grad():
        run.ranker.model.out.bias.fill_(torch.nan)
    with pytest.raises(DataError, match="the loss is nan"):
        run.training.run()


@pytest.mark.parametrize(
    "wrong", [{"loss": "hinge"}, {"epochs": 0.0}, {"minutes": float("nan")}, {"list_size": 1}]
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainingPlan(**wrong)


def test_an_epoch_has_each_example_once_in_lists_of_like_lengths(
    folders: tuple[Path, Path],
) -> None:
    from dynasor.ranking.backbone import load_backbone
    from dynasor.ranking.prompt_window import PromptWindow

    examples = read_ranker_data(folders[0], later_turns=0, seed=0).train
    backbone = load_backbone(str(folders[1]))
    window = PromptWindow(backbone.tokenizer, backbone.ends, 32)
    lists = TrainingLists(examples, window, size=16, seed=3)
    epoch = list(lists.epoch(0))
    assert len(epoch) == len(lists) == 10
    tokens = torch.cat([lengths.log_tokens[0] for _, lengths in epoch])
    assert sorted(tokens.tolist()) == sorted(float(np.float32(np.log(e.tokens))) for e in examples)
    padded = sum(int((batch.mask == 0).sum()) for batch, _ in epoch)
    assert padded < 0.1 * sum(batch.mask.numel() for batch, _ in epoch)
    rest = list(lists.epoch(0, 7))
    assert all(torch.equal(a.ids, b.ids) for (a, _), (b, _) in zip(rest, epoch[7:], strict=True))
    assert not torch.equal(next(lists.epoch(1))[0].shape, epoch[0][0].shape)


def command(folders: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    data, backbone = folders
    return [
        "rank", "train", str(data), "--out", str(out),
        "--backbone", str(backbone), "--window", "32", "--rate", "0.01", "--list-size", "16",
        "--threads", "1", "--patience", "1000", *more,
    ]  # fmt: skip


def test_the_command_survives_kill_9_and_ctrl_c(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    state = out / "training" / "state.pt"
    words = command(folders, out, "--epochs", "400", "--json")
    long = [sys.executable, "-m", "dynasor.cli", *words]
    with subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as killed:
        _wait_for(state)
        killed.send_signal(signal.SIGKILL)
    assert not (out / "card.json").exists()
    before = torch.load(state, weights_only=True)["step"]
    with subprocess.Popen(
        long, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as stopped:
        _wait_for(state, newer_than=state.stat().st_mtime_ns)
        stopped.send_signal(signal.SIGINT)
        printed, told = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, told
    card = json.loads(printed)
    assert card["training"]["steps"] > before
    assert not card["training"]["finished"]
    assert "goes on from here" in told
    assert len(load_ranker(out).score(["hi", "write"])) == 2


def test_the_command_trains_and_shows_what_came_of_it(
    run_here: Callable[..., Ended],
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    done = run_here(*command(folders, tmp_path / "out", "--epochs", "2"))
    assert done.returncode == 0, done.stderr
    assert "Kendall's tau" in done.stdout
    assert "held-out" in done.stdout


def _wait_for(file: Path, newer_than: int = 0) -> None:
    for _ in range(2400):
        if file.exists() and file.stat().st_mtime_ns > newer_than:
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} was not written")
