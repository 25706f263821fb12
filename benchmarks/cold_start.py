"""What a new execution environment costs before its first answer."""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median

from benchmarks.figures import Figure, in_turn, ratios
from benchmarks.handler import HANDLER, environment_for, output_of
from benchmarks.project import Ground

# A fixed yardstick: the usual clients of those servers, whatever the handler makes do with.
_IMPORTS = "import boto3, psycopg, storage3, aws_lambda_powertools"
_ANSWER = f"{HANDLER}\nanswer()"


def cold_start(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Import the handler and let it answer (a whole idle cycle), over the bare import of the clients of its servers."""
    pairs = 3 if quick else 11
    with ground.project() as project, environment_for(ground, project) as environment:
        project.seed(0, saved=100)
        for program in ("", _IMPORTS, _ANSWER):  # once for the bytecode and the caches
            _seconds(program, environment)
        bare, answers = in_turn(pairs, *(partial(_seconds, program, environment) for program in (_IMPORTS, _ANSWER)))
    note = (
        f"{median(answers) * 1000:.0f} ms to the answer of an idle cycle, {median(bare) * 1000:.0f} ms for imports, "
        "both with the interpreter's start"
    )
    yield Figure("cold_start_vs_imports", ratios(answers, bare), note)


def _seconds(program: str, environment: Mapping[str, str]) -> float:
    started = time.perf_counter()
    output_of(program, environment)
    return time.perf_counter() - started
