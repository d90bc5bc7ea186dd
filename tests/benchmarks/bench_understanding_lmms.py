"""The part of bench_understanding.py that needs lmms-eval: its evaluator and ours, one model, one parquet file.

Three ways through the same documents (task `vqav2_val`, pictures embedded, answers of 16 tokens at most):

* lmms-eval's evaluator with a model class that asks one question at a time, as its model back ends do by default;
* lmms-eval's evaluator with our registered class, which gets all requests at once;
* our own run of task `vqav2` on that file, scored and on disk.

Seconds are those of the evaluation alone: the model is loaded and lmms-eval imported before.
"""

from __future__ import annotations

import copy
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_documents(path: Path, images: Sequence[Any], texts: Sequence[str]) -> None:
    """VQAv2's columns, ten equal annotators; through `datasets`, which marks the pictures as such for lmms-eval."""
    from datasets import Dataset, Image

    encoded: dict[int, bytes] = {}
    rows = []
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        if id(image) not in encoded:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            encoded[id(image)] = buffer.getvalue()
        answers = [{"answer": "yes", "answer_confidence": "yes", "answer_id": k} for k in range(10)]
        rows.append({
            "question_id": number, "image_id": number, "question": text, "question_type": "is", "answer_type": "yes/no",
            "multiple_choice_answer": "yes", "answers": answers, "image": {"bytes": encoded[id(image)], "path": None},
        })  # fmt: skip
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(str(path))


def through_lmms_eval(
    model: str, images: Sequence[Any], texts: Sequence[str], max_new_tokens: int
) -> list[dict[str, Any]]:
    import lmms_eval.evaluator
    from lmms_eval.api.model import lmms
    from lmms_eval.tasks import TaskManager

    import evals
    from blip3o.pipeline import Blip3oPipeline
    from evals.lmms.adapter import Blip3oSimple
    from evals.plugins.lookup import find_task

    pipe = Blip3oPipeline.from_pretrained(model)

    class OneByOne(lmms):
        """What a back end does that neither batches nor shares pictures."""

        is_simple = True

        def generate_until(self, requests: list[Any]) -> list[str]:
            found = []
            for request in requests:
                prompt, _, to_visual, number, task, split = request.args
                pictures = to_visual(self.task_dict[task][split][number])
                found += pipe.ask_batch(
                    [pictures], [prompt], max_new_tokens=max_new_tokens, batch_size=1, share_pictures=False
                )
            return found

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vqav2.parquet"
        write_documents(path, images, texts)
        task = {
            "task": "vqav2_val", "dataset_path": "parquet",
            "dataset_kwargs": {"data_files": {"validation": str(path)}},
        }  # fmt: skip
        manager = TaskManager(model_name="blip3o")

        def evaluator(instance: Any) -> Any:
            return lmms_eval.evaluator.simple_evaluate(
                model=instance, tasks=[copy.deepcopy(task)], task_manager=manager, log_samples=False, bootstrap_iters=0
            )

        def own() -> Any:
            data = find_task("vqav2", path)
            return evals.evaluate(
                data, model, batch_size=len(texts), output=Path(folder) / "run", quiet=True, report=False,
                tracking__enabled=False,
            )  # fmt: skip

        for name, call in (
            ("lmms-eval, one by one", lambda: evaluator(OneByOne())),
            ("lmms-eval, our registered class", lambda: evaluator(Blip3oSimple(model, len(texts)))),
            ("our run of the same file, model load included", own),
        ):
            began = time.perf_counter()
            call()
            seconds = time.perf_counter() - began
            rows.append({"setting": name, "seconds": seconds, "answers_per_second": len(texts) / seconds})
    return rows
