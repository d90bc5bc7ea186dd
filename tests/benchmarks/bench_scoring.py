"""Scoring recorded answers of VQAv2's size: 214,354 rows, wall time, processor time and memory.

    python tests/benchmarks/bench_scoring.py                 # about 160 MB of made-up rows in a temporary folder
    python tests/benchmarks/bench_scoring.py --rows 20000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = "yes no two 2 red a dog the man's hat left none it is on table grass don't know white tennis".split()


def write_rows(path: Path, count: int) -> None:
    """Rows with ten annotators each, as the data set has them."""
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            pool = [" ".join(draw.choices(WORDS, k=draw.choice((1, 1, 1, 2)))) for _ in range(3)]
            answers = [
                {"answer": draw.choice(pool), "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)
            ]
            doc = {
                "question_id": number, "image_id": number // 5, "question": "What is this on the left?",
                "question_type": "what is", "answer_type": "other", "multiple_choice_answer": pool[0],
                "answers": answers,
            }  # fmt: skip
            line = {"n": number, "doc": doc, "image_columns": ["image"], "response": draw.choice([*pool, "a cat."])}
            file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=214_354)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        write_rows(path, options.rows)
        for more in (["--compat", "lmms-eval"], []):
            command = [sys.executable, "-m", "evals.cli.main", "score", "--task", "vqav2", "--answers", str(path)]
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            with open(Path(folder) / "out.jsonl", "wb") as out:
                subprocess.run([*command, *more, "--json"], stdout=out, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"{' '.join(more) or 'native'}: {options.rows:,} rows, {time.perf_counter() - began:.1f} s wall, "
                f"{cpu:.1f} s processor, at most {after.ru_maxrss / 1024:.0f} MiB"
            )


if __name__ == "__main__":
    main()
