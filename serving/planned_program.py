"""From a plan to the program that carries it out."""

from __future__ import annotations

from algorithms.agentwrite import AgentWrite
from algorithms.chat import Chat
from algorithms.program import Program
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.equivalence import AnswerGroups, Equivalence
from dynasor.programs import Ingredients, build_program
from serving.reasoning_plan import Plan

EXTRACTOR = "math"


def program_of(plan: Plan, equivalence: Equivalence) -> Program:
    """A fresh program.

    Args:
        plan: what is to be done.
        equivalence: groups answers.

    Raises:
        ConfigError: if the settings of the program contradict each other.
    """
    if plan.plain:
        return Chat(
            plan.id,
            plan.prompt,
            sampling=plan.sampling,
            choices=plan.samples,
            prefix=plan.prefix,
            report_every=plan.report_every,
        )
    if plan.writing is not None:
        return AgentWrite(
            plan.id,
            _instruction(plan),
            words=plan.writing.words,
            sampling=plan.sampling,
            care=plan.writing.care,
        )
    name = plan.config.algorithm.extractor or EXTRACTOR
    task = Task(
        plan.id,
        plan.prompt,
        plan.sampling,
        extract=lambda text: extract(text, name),
        groups=AnswerGroups(equivalence),
    )
    return build_program(Ingredients(plan.config, task, plan.report_every))


def _instruction(plan: Plan) -> str:
    """What agentwrite is asked to write."""
    return plan.prompt if isinstance(plan.prompt, str) else plan.prompt[0]["content"]
