import os
from pathlib import Path
from typing import Any

# Before anything that computes is imported. Workers share the cores: threads of a computation would
# spend more time waiting for each other than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    "engine": [
        "tests/dynasor/test_vllm_engine.py",
        "tests/dynasor/test_programs_live.py",
        "tests/dynasor/test_vllm_scheduler.py",
        "tests/dynasor/test_simulated_vllm.py",
        "tests/dynasor/test_openai_engine.py",
        "tests/dynasor/test_reward_classifiers.py",
    ],
    "commands": [
        "tests/serving/test_serve_command.py",
        "tests/dynasor/test_bench_online.py",
        "tests/dynasor/test_demo.py",
    ],
    "rankers": [
        "tests/dynasor/test_rank_training.py",
        "tests/dynasor/test_rank_encoder.py",
        "tests/dynasor/test_rank_blend.py",
    ],
}
"""Files that run one after the other on one worker: with vLLM in the worker's own process, with it in
processes of commands, with transformers. Each takes long to import, and engines that start beside
others take long to start; so at most two do at a time."""

SCOPES = {file: scope for scope, files in TOGETHER.items() for file in files}


class TogetherScheduling(LoadFileScheduling):
    """The tests of a file run on one worker, and so do those of `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return SCOPES.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherScheduling:
    """Which worker runs what."""
    return TogetherScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that at the end no worker is left alone with it."""
    root = Path(__file__).parents[1]
    place = {root / file: number for number, file in enumerate(SCOPES)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
