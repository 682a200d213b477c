"""The command that `make demo` runs, on the real vLLM, with fewer questions."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


@pytest.mark.timeout(600)  # a fresh installation compiles what it imports
def test_the_demo_shows_both_systems_and_writes_the_report(tmp_path):
    pytest.importorskip("vllm")
    line = re.search(r"^demo:.*\n\t\$\(BIN\)/dynasor (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    arguments = shlex.split(line[1])
    arguments[arguments.index("--limit") + 1] = "5"
    arguments[arguments.index("--out") + 1] = str(tmp_path / "demo")
    result = subprocess.run(
        [sys.executable, "-m", "dynasor.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "CPU: " in result.stdout
    assert "full budget (16)" in result.stdout
    assert "of the full budget's tokens saved" in result.stdout
    assert (tmp_path / "demo" / "report.html").stat().st_size > 1000
    assert len((tmp_path / "demo" / "full" / "samples.jsonl").read_text().splitlines()) == 5 * 16
    for picture in ("frontier", "samples", "calibration", "stops"):
        assert (tmp_path / "demo" / f"{picture}.png").stat().st_size > 1000
