"""The embedded problems as a task of Inspect (https://inspect.aisi.org.uk), asked at `dynasor serve`.

    pip install inspect-ai openai
    dynasor serve &
    export DYNASOR_API_KEY=none DYNASOR_BASE_URL=http://127.0.0.1:8000/v1
    inspect eval examples/inspect_embedded.py --model openai-api/dynasor/embedded --limit 50
    inspect eval examples/inspect_embedded.py --model openai-api/dynasor/embedded --limit 50 \
        --reasoning-effort medium

The second evaluation asks the same model to think until it is certain. Inspect knows nothing of Dynasor.
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate

PROBLEMS = Path(__file__).parent.parent / "dynasor" / "embedded_model" / "test.jsonl"


@task
def embedded() -> Task:
    fields = FieldSpec(id="id", input="question", target="answer")
    return Task(
        dataset=json_dataset(str(PROBLEMS), fields),
        solver=generate(),
        scorer=pattern(r"\\boxed\{([^{}]*)\}"),
    )
