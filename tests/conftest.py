from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

SHARING = {"tests/dynasor/test_programs_live.py", "tests/dynasor/test_vllm_engine.py"}


class SharedEngine(LoadFileScheduling):
    """The tests of a file run on one worker, and so do all that share the engine in the process.

    An engine takes half a minute to start where two workers load vLLM at once.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "vllm_engine" if file in SHARING else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedEngine:
    """Which worker runs what."""
    return SharedEngine(config, log)
