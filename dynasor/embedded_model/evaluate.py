"""Measure the embedded model: `python -m dynasor.embedded_model.evaluate MODEL_DIR`.

Samples on vLLM at temperature 1 and prints, for each level and overall, how often one sample is
right, how often the majority of the samples is, and how long solutions are; then the probe
curve: how often an unfinished solution that is asked for its answer gives one, and the right one.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from dynasor.embedded_model import path, test_suite
from dynasor.embedded_model.problems import PROBE_SUFFIX, Problem, problems

CUTS = (0.0, 0.25, 0.5, 0.75, 0.95)
"""Where solutions are cut to be probed, as shares of their tokens."""

LONGEST_SOLUTION = 480
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")

# The engine in this process, on the cores that are there; what the user has set stays.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "2",
    "KMP_BLOCKTIME": "0",
}


@dataclass(frozen=True)
class Sample:
    """One sampled text, as tokens and decoded."""

    text: str
    token_ids: tuple[int, ...]

    @property
    def answer(self) -> str | None:
        """The text in the last box, or None where there is no box."""
        boxes = BOXED.findall(self.text)
        return boxes[-1].strip() if boxes else None


@dataclass(frozen=True)
class LevelFigures:
    """What is measured for a level (0: all levels): shares are 0..1, lengths in tokens."""

    level: int
    problems: int
    single: float
    majority: float
    boxed: float
    tokens: float


@dataclass(frozen=True)
class ProbeFigures:
    """What a probe after `cut` of a solution gives: shares of boxed and of right answers."""

    cut: float
    boxed: float
    right: float


class Sampler:
    """The model on an in-process vLLM engine."""

    def __init__(self, model: Path) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import vllm

        self._vllm = vllm
        self._llm: Any = vllm.LLM(
            model=str(model),
            dtype="bfloat16",
            distributed_executor_backend="uni",
            enforce_eager=True,
            block_size=32,
            max_num_seqs=128,
            max_model_len=1024,
        )
        self.tokenizer: Any = self._llm.get_tokenizer()

    def prompt(self, question: str) -> list[int]:
        """The question in the chat format, up to where the solution begins."""
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def sample(
        self, prompts: Sequence[list[int]], count: int, most_tokens: int
    ) -> list[list[Sample]]:
        """`count` samples for each prompt, at temperature 1 over the whole vocabulary."""
        settings = self._vllm.SamplingParams(n=count, temperature=1.0, max_tokens=most_tokens)
        requests = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self._llm.generate(requests, settings, use_tqdm=False)
        return [
            [Sample(choice.text, tuple(choice.token_ids)) for choice in output.outputs]
            for output in outputs
        ]


def read_suite(file: Path) -> list[Problem]:
    """The problems of a JSON Lines file such as `test.jsonl`."""
    fields = (json.loads(line) for line in file.read_text().splitlines() if line.strip())
    return [
        Problem(f["id"], f["family"], int(f["level"]), f["question"], "", str(f["answer"]))
        for f in fields
    ]


def majority(samples: Sequence[Sample]) -> str | None:
    """The answer that most samples give (the first of them at a tie), None without any."""
    votes = Counter(sample.answer for sample in samples if sample.answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def level_figures(
    level: int, asked: Sequence[Problem], drawn: Sequence[Sequence[Sample]]
) -> LevelFigures:
    """The figures of one level, or of all problems where the level is 0."""
    pairs = [(p, s) for p, s in zip(asked, drawn, strict=True) if level in (0, p.level)]
    samples = [(problem, sample) for problem, group in pairs for sample in group]
    return LevelFigures(
        level=level,
        problems=len(pairs),
        single=fmean(sample.answer == problem.answer for problem, sample in samples),
        majority=fmean(majority(group) == problem.answer for problem, group in pairs),
        boxed=fmean(sample.answer is not None for _, sample in samples),
        tokens=fmean(len(sample.token_ids) for _, sample in samples),
    )


def probe_curve(
    sampler: Sampler, asked: Sequence[Problem], drawn: Sequence[Sequence[Sample]]
) -> list[ProbeFigures]:
    """Cut the first sample of each problem at each of `CUTS` and ask for the answer there."""
    suffix = list(sampler.tokenizer.encode(PROBE_SUFFIX, add_special_tokens=False))
    figures = []
    for cut in CUTS:
        prompts = [
            [*sampler.prompt(p.question), *s[0].token_ids[: int(cut * len(s[0].token_ids))]]
            for p, s in zip(asked, drawn, strict=True)
        ]
        probes = sampler.sample([[*prompt, *suffix] for prompt in prompts], 1, 12)
        found = [re.match(r"\s*(-?\d+)\s*\}", group[0].text) for group in probes]
        right = [m is not None and m[1] == p.answer for m, p in zip(found, asked, strict=True)]
        figures.append(ProbeFigures(cut, fmean(m is not None for m in found), fmean(right)))
    return figures


def print_tables(levels: Sequence[LevelFigures], probes: Sequence[ProbeFigures]) -> None:
    """Both tables, for a person to read."""
    print("level  problems  single  majority  boxed  tokens")
    for row in levels:
        print(
            f"{row.level or 'all':>5}  {row.problems:8}  {row.single:6.1%}  {row.majority:8.1%}"
            f"  {row.boxed:5.1%}  {row.tokens:6.1f}"
        )
    print("\nprobe after  boxed   right")
    for probe in probes:
        print(f"{probe.cut:11.0%}  {probe.boxed:5.1%}  {probe.right:6.1%}")


def main() -> None:
    """Read the command line, sample and print the tables."""
    parser = argparse.ArgumentParser(description="Measure the embedded model on vLLM.")
    parser.add_argument("model", type=Path, nargs="?", default=path(), metavar="MODEL_DIR")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--validation", action="store_true", help="fresh validation problems")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    arguments = parser.parse_args()
    if not (arguments.model / "config.json").is_file():
        parser.error(f"no model in {arguments.model}")
    if arguments.problems < 5 or arguments.samples < 1:
        parser.error("at least 5 problems and 1 sample are needed")
    if arguments.validation:
        asked = list(problems(0, "validation", arguments.problems))
    else:
        asked = list(islice(read_suite(test_suite()), arguments.problems))
    sampler = Sampler(arguments.model)
    prompts = [sampler.prompt(problem.question) for problem in asked]
    drawn = sampler.sample(prompts, arguments.samples, LONGEST_SOLUTION)
    levels = [level_figures(level, asked, drawn) for level in (1, 2, 3, 4, 5, 0)]
    probes = probe_curve(sampler, asked, drawn)
    if arguments.json:
        report = {"levels": [asdict(r) for r in levels], "probes": [asdict(r) for r in probes]}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        print_tables(levels, probes)


if __name__ == "__main__":
    main()
