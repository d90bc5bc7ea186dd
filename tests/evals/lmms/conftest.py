"""Made-up documents in the schemas of lmms-eval's tasks, and a model that answers from its prompt alone.

These tests need lmms-eval: in an environment with `pip install 'blip3o-eval[understanding]' pytest`, run
`pytest tests/evals/lmms`.
"""

import hashlib
import json
from pathlib import Path

import pytest

from evals.api import Identity

WORDS = ("A", "B", "C", "(D)", "yes", "no", "Yes, it is.", "2", "red", "The answer is B.")


def word_for(prompt):
    return WORDS[int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % len(WORDS)]


def likelihood_for(prompt, text):
    return -(int(hashlib.sha256(f"{prompt}|{text}".encode()).hexdigest(), 16) % 1000) / 100


class Scripted:
    """Answers are a function of the prompt; those to prompts with `fails_on` fail."""

    def __init__(self, fails_on=None):
        self.fails_on = fails_on
        self.asked = []
        self.identity = Identity("scripted", "1", "0" * 64, "test", is_test_double=True)

    def load(self):
        pass

    def close(self):
        pass

    def answer(self, requests):
        for request in requests:
            assert all(picture.mode == "RGB" for picture in request.images)
        self.asked += requests
        return [
            ValueError("told to fail") if self.fails_on and self.fails_on in r.prompt else word_for(r.prompt)
            for r in requests
        ]

    def log_likelihoods(self, requests, continuations):
        return [likelihood_for(r.prompt, text) for r, text in zip(requests, continuations, strict=True)]


@pytest.fixture
def scripted():
    return Scripted


def picture(number, size=(64, 48)):
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, (37 * number % 256, 91 * number % 256, 53 * number % 256))
    ImageDraw.Draw(image).rectangle([5, 5, 20 + number % 20, 30], fill=(77 * number % 256, 10, 200))
    return image


def _options(n):
    return [f"object {n}", "cat", "dog", "tree"]


def _vqa(n):
    return [{"answer": "red" if k < 4 else "2", "answer_confidence": "yes", "answer_id": k} for k in range(10)]


# task -> (rows of one document, how many)
SCHEMAS = {
    "ai2d": lambda n: {"question": f"which {n}?", "options": _options(n), "answer": str(n % 4), "image": picture(n)},
    "pope": lambda n: {
        "id": str(n), "question_id": str(n), "question": f"Is there a cat {n} in the image?",
        "answer": ("yes", "no")[n % 2], "image_source": "made-up", "image": picture(n), "category": "random",
    },
    "chartqa": lambda n: {
        "type": ("human_test", "augmented_test")[n % 2], "question": f"how many bars {n}?",
        "answer": ("2", "red")[n % 2], "image": picture(n),
    },
    "mme": lambda n: {
        "question_id": f"count/{n // 2}.png" if n < 16 else f"OCR/{n // 2}.png", "image": picture(n // 2),
        "question": f"Is this {n}? Please answer yes or no.", "answer": ("Yes", "No")[n % 2],
        "category": "count" if n < 16 else "OCR",
    },
    "seedbench_ppl": lambda n: {
        "question_id": str(n), "question": f"What is {n}?", "answer": "ABCD"[n % 4], "data_type": "image",
        "choice_a": f"a{n}", "choice_b": f"cat {n}", "choice_c": "dog", "choice_d": "tree", "image": [picture(n)],
    },
    "arc_easy": lambda n: {
        "id": str(n), "question": f"What falls {n}?", "answerKey": "ABCD"[n % 4],
        "choices": {"text": _options(n), "label": ["A", "B", "C", "D"]},
    },
    "docvqa_val": lambda n: {
        "questionId": str(n), "question": f"what date {n}?", "answers": ["red", "2", f"date {n}"],
        "docId": n // 3, "image": picture(n // 3),
    },
    "scienceqa_img": lambda n: {
        "question": f"which force {n}?", "choices": ["push", "pull", "none"], "answer": n % 3,
        "hint": f"hint {n}" if n % 2 else "", "image": picture(n),
    },
    "vqav2_val": lambda n: {
        "question_type": "what", "multiple_choice_answer": "red", "answers": _vqa(n), "image_id": n // 3,
        "answer_type": ("other", "number")[n % 2], "question_id": n, "question": f"what colour {n}?",
        "image": picture(n // 3),
    },
    "realworldqa": lambda n: {
        "image": picture(n), "question": f"Which {n}?\nA. left\nB. right\nC. up\nPlease answer with the letter.",
        "answer": "ABC"[n % 3], "image_path": f"{n}.png",
    },
    "mmstar": lambda n: {
        "index": n, "question": f"Which {n}? Options: A: a, B: b, C: c, D: d", "answer": "ABCD"[n % 4],
        "category": ("math", "logical reasoning")[n % 2], "l2_category": ("geometry", "common reasoning")[n % 2],
        "meta_info": "{}", "image": picture(n),
    },
    "mmmu_val": lambda n: {
        "id": f"validation_{('Art', 'Math')[n % 2]}_{n}", "question": f"What is in <image 1> and <image 2> {n}?",
        "options": repr(_options(n)) if n % 3 else "[]", "explanation": "", "answer": "ABCD"[n % 4] if n % 3 else "2",
        "question_type": "multiple-choice" if n % 3 else "open", "img_type": "['Photographs']",
        "subfield": "x", "topic_difficulty": "Easy",
        **{f"image_{k}": picture(10 * n + k) if k < 3 else None for k in range(1, 8)},
    },
    "gsm8k": lambda n: {"question": f"How much is {n} + 1?", "answer": f"It is\n#### {2 if n % 2 else n}"},
    "blink": lambda n: {
        "idx": f"val_{n}", "question": f"which {n}?", "sub_task": "x", "prompt": f"Which is it {n}? (A) one (B) two",
        "choices": ["one", "two"], "answer": ("(A)", "(B)")[n % 2], "explanation": "",
        **{f"image_{k}": picture(n + k) if k < 3 else None for k in range(1, 5)},
    },
}  # fmt: skip


@pytest.fixture
def made_up(tmp_path):
    """`made_up(task, n, folder)`: n made-up documents as FOLDER/TASK.parquet; returns the path."""

    def write(task, n=24, folder=None, schema=None):
        import datasets
        from PIL import Image

        rows = [SCHEMAS[schema or task](k) for k in range(n)]
        made = datasets.Dataset.from_list(rows)
        for column, value in rows[0].items():
            if isinstance(value, Image.Image) or any(isinstance(row[column], Image.Image) for row in rows):
                made = made.cast_column(column, datasets.Image())
            elif isinstance(value, list) and value and isinstance(value[0], Image.Image):
                made = made.cast_column(column, datasets.Sequence(datasets.Image()))
            elif value is None:
                made = made.cast_column(column, datasets.Image())
        path = Path(folder or tmp_path / "data") / f"{task}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        made.to_parquet(str(path))
        return path

    return write


@pytest.fixture
def theirs():
    """`theirs(task, path, form)`: the figures of lmms-eval's own evaluator with the same scripted answers."""

    def run(task, path, form="simple", num_fewshot=None, include=None):
        from evals.lmms import loading, package

        names = ("evaluator", "api.model", "api.instance", "tasks")
        evaluator, model, instance, tasks = (package.load(f"lmms_eval.{name}") for name in names)

        class Model(model.lmms):
            is_simple = form == "simple"

            def generate_until(self, requests):
                if form == "simple":
                    return [word_for(request.args[0]) for request in requests]
                texts = []
                for request in requests:
                    _, to_messages, _, doc_id, name, split = request.args
                    parts = to_messages(self.task_dict[name][split][doc_id])[0]["content"]
                    texts.append(word_for("".join(p["text"] for p in parts if p["type"] == "text")))
                return texts

            def loglikelihood(self, requests):
                # Its evaluator makes a text of a bare pair, and multiple choice then fails.
                pairs = [(-likelihood_for(r.args[0], r.args[1]), False) for r in requests]
                return [instance.GenerationResult(text=pair) for pair in pairs]

            def generate_until_multi_round(self, requests):
                found = []
                for request in requests:
                    prompt, _, _, follow, doc_id, name, split = request.args
                    document, said, state, is_end, number = self.task_dict[name][split][doc_id], [], None, False, 0
                    while not is_end:
                        said = [*said, word_for(prompt)]
                        number += 1
                        _, prompt, is_end, said, state = follow(
                            document, previous_output=said, round_idx=number, previous_round_info=state
                        )
                    found.append(list(said))
                return found

        # Its own loading, but for where the documents lie; a fresh set of task objects.
        loaded = loading.load(task, path, form, include=include)
        manager = tasks.TaskManager.__new__(tasks.TaskManager)
        real = evaluator.get_task_dict
        evaluator.get_task_dict = lambda *_: loaded.tree
        try:
            results = evaluator.simple_evaluate(
                model=Model(), tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=False,
                num_fewshot=num_fewshot, cli_args=None,
            )
        finally:
            evaluator.get_task_dict = real
        return results["results"]

    return run


def figures_of(results):
    """Task -> metric -> number, of lmms-eval's `results` (or `None` where it has no number)."""
    return {
        task: {
            key: value if isinstance(value, (int, float)) else None
            for key, value in found.items()
            if "," in key and "_stderr" not in key and not isinstance(value, list)  # [] where nothing was scored
        }
        for task, found in results.items()
    }


@pytest.fixture
def as_figures():
    return figures_of


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
