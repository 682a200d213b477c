"""A reasoning program of one's own: ask twice, and a third time only if the two disagree.

python examples/two_opinions.py  # docs/programs.md explains it line by line
"""

import asyncio

from algorithms.program import Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.config import load_config
from dynasor.engines.build import build_engine
from dynasor.runtime import Runtime


class TwoOpinions(SelfConsistency):
    """At most three samples; the third breaks a tie, and costs nothing where there is none."""

    def __init__(self, id, question, groups):
        task = Task(
            id,
            ({"role": "user", "content": question},),
            sampling=Sampling(max_tokens=400),
            extract=lambda text: extract(text, "boxed"),
            groups=groups,
        )
        super().__init__(task, samples=3)

    def propose(self, n):
        """Two at once, then wait for both, then perhaps one more."""
        if self._proposed >= 2 and self._running:
            return []
        return super().propose(min(n, max(1, 2 - self._proposed), self.remaining()))

    def remaining(self):
        """Nothing more to ask where two agree."""
        return 0 if self.votes().top_two()[0] >= 2 else super().remaining()


async def main():
    question = "Mia has 14 shells. She finds 8 more. She gives away 5. How many does Mia have now?"
    engine = build_engine(load_config().engine)
    await engine.start()
    try:
        with AnswerEquivalence() as equivalence:
            program = TwoOpinions("mia", question, AnswerGroups(equivalence))
            outcome = await Runtime(engine, PerQuery(parse_rule("never"), wave=2)).solve(program)
    finally:
        await engine.close()
    print(outcome.answer.value, outcome.reason, f"{outcome.samples} samples")


if __name__ == "__main__":  # vLLM starts processes of its own
    asyncio.run(main())
