"""A calibration for a model on a GPU that is not at hand, by arithmetic: an assumption, not measured.

    python benchmarks/roofline_calibration.py nemotron-nano-9b-v2 --out nemotron.json

Decoding reads from memory, prompts compute, so a step takes

    launch + weights / bandwidth                for reading the weights once
    + state read and written / bandwidth        for each request that decodes (recurrent layers)
    + 2 x parameters / compute                  for each token of a prompt
    + keys and values of a token / bandwidth    for each token in the KV cache

with the shares of the GPU's peak that well-made engines reach (`ACHIEVED_*`). Left out: sampling, and
that large batches compute while they read. Sizes of models are from their published configurations,
peaks from the vendor's data sheet.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from dynasor.engines.calibration import Calibration
from dynasor.engines.step_time import StepTime

ACHIEVED_BANDWIDTH = 0.7
ACHIEVED_COMPUTE = 0.5
LAUNCH = 1e-3
"""Seconds of a step in which the GPU waits for the host."""
USED_MEMORY = 0.9
WORKSPACE = 4e9
"""Bytes for activations and captured graphs."""
BLOCK = 16


@dataclass(frozen=True)
class Gpu:
    """Peaks of a GPU: bytes, bytes a second, operations a second in bfloat16 without sparsity."""

    name: str
    memory: float
    bandwidth: float
    compute: float


@dataclass(frozen=True)
class Model:
    """Sizes of a model.

    Attributes:
        parameters: in bfloat16, two bytes each.
        attention_layers, kv_heads, head: of the layers that keep keys and values, bfloat16.
        state: bytes of a request's recurrent state, all layers.
        max_running: requests in the batch at once.
    """

    parameters: float
    attention_layers: int
    kv_heads: int
    head: int
    state: float
    max_running: int

    @property
    def kv_token(self) -> float:
        """Bytes of a token in the KV cache."""
        return 2.0 * self.attention_layers * self.kv_heads * self.head * 2


H100 = Gpu("NVIDIA H100 SXM 80 GB", 80e9, 3.35e12, 989e12)
MODELS = {
    # 4 attention, 27 Mamba-2 and 25 MLP layers; state 128 heads x 80 x 128 in float32.
    "nemotron-nano-9b-v2": Model(8.9e9, 4, 8, 128, 27 * 128 * 80 * 128 * 4.0, 128),
    "phi-4-reasoning": Model(14.7e9, 40, 10, 128, 0.0, 128),
}


def calibration_of(name: str, model: Model, gpu: Gpu) -> Calibration:
    """The file's content."""
    read = ACHIEVED_BANDWIDTH * gpu.bandwidth
    left = USED_MEMORY * gpu.memory - 2 * model.parameters - WORKSPACE
    left -= model.max_running * model.state
    return Calibration(
        model=name,
        hardware=f"{gpu.name}, by arithmetic (benchmarks/roofline_calibration.py)",
        step_time=StepTime(
            base=LAUNCH + 2 * model.parameters / read,
            per_request=2 * model.state / read,
            per_prefill_token=2 * model.parameters / (ACHIEVED_COMPUTE * gpu.compute),
            per_context_token=model.kv_token / read,
        ),
        steps=1,
        per_request=0.002,
        max_running=model.max_running,
        max_batched_tokens=8192,
        kv_blocks=int(left / model.kv_token / BLOCK),
        block_size=BLOCK,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = calibration_of(arguments.model, MODELS[arguments.model], H100)
    if arguments.out:
        found.write(arguments.out)
    print(json.dumps(found.to_json(), indent=1))


if __name__ == "__main__":
    main()
