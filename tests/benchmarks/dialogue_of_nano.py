"""How a conversation changes what nano draws and answers: ``python tests/benchmarks/dialogue_of_nano.py [N]``.

Held-out scenes with one object. Drawn: the judge's GenEval verdict on a first picture and on a second one, drawn after
a question about the first. Asked: yes/no questions about a shown picture, alone and after such a talk.
"""

from __future__ import annotations

import sys
from itertools import count, islice

import torch
from PIL import Image

from blip3o import Blip3oPipeline
from blip3o.stickers import SceneConfig, make_scene, render
from blip3o.stickers.captions import prompt
from blip3o.stickers.questions import questions
from evals.judges.stickers import StickersJudge
from tasks.generation.geneval import _verdict


def main(n: int) -> None:
    torch.set_num_threads(1)
    pipe, world = Blip3oPipeline.from_pretrained("nano"), SceneConfig.level("easy")
    judge = StickersJudge()
    judge.load()
    scenes = (make_scene("val", index, world) for index in count(10_000))
    single = list(islice((s for s in scenes if s.kind == "single_object"), 2 * n))

    def is_right(scene, picture) -> float:
        spec = scene.spec()
        found = judge.detect([picture], [[spec["include"][0]["class"]]])[0]
        return float(_verdict(spec, found, True).value or 0)

    first, second, after, alone, seen = [], [], [], [], []
    for a, b in zip(single[:n], single[n:], strict=True):
        pair = [q for q in questions(b, 1) if q.kind == "yes_no" and q.aspect == "object"][:2]
        talk = pipe.chat()
        first.append(is_right(a, talk.draw(prompt(a))))
        drawn = next(q for q in questions(a, 1) if q.kind == "yes_no" and q.answer == "yes")
        seen.append(talk.ask(drawn.question, max_new_tokens=4).strip() == "yes")
        second.append(is_right(b, talk.draw(prompt(b))))
        shown = Image.fromarray(render(b).image)
        for question in pair:
            alone.append(pipe.ask(shown, question.question, max_new_tokens=4) == question.answer)
        after.append(talk.ask(pair[0].question, [shown], max_new_tokens=4).strip() == pair[0].answer)
    rows = {
        "first picture right": first,
        "second picture right": second,
        "own picture recognised": seen,
        "question right, alone": alone,
        "question right, after a talk": after,
    }
    for name, values in rows.items():
        print(f"{name:30} {sum(values) / len(values):.3f}  of {len(values)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
