"""Dense captions of sticker scenes: does the picture hold everything that the caption says?

Measures: faithfulness to long prompts, in DPG-Bench's way. 200 dense captions, 4 pictures each; a judge answers a
graph of yes/no questions about every picture (objects, counts, colours, places, relations, background; 8 on average).
Data: scenes of the sticker world at level easy that no training sees (splits test_seen and test_unseen), a function of
their index; caption and questions come from the scene's ground truth; nothing to download.
Scorer: the rules of DPG-Bench (`dpg_rules`), modes `fixed` and `official`. The sticker judge answers from what it
detects; any VQA judge can be asked the same questions in words.

Worth: figures about sticker scenes only; they do not compare with figures of DPG-Bench. Read them beside the ceiling
and the floor of docs/dpg.md: what the judge says of the scenes' own pictures, and of those of other scenes.

Version 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evals.api import Sample, TaskKind
from tasks.generation import dpg_rules as rules
from tasks.generation.dpg_graph import QuestionGraphTask

if TYPE_CHECKING:
    from blip3o.stickers.question_graph import Node

KINDS = ("free", "color_attr", "position", "counting")
PER_KIND = {"free": 80, "color_attr": 40, "position": 40, "counting": 40}
SPLITS = ("test_seen", "test_unseen")
FEWEST_STICKERS = {"free": 3, "color_attr": 2, "position": 2, "counting": 2}


class DpgStickers(QuestionGraphTask):
    """The task; see the module's card. Groups are the kinds of scenes."""

    name = "dpg_stickers"
    version = "1"
    kind: TaskKind = "generation"
    groups = KINDS
    num_images = 4
    # The pictures are stickers whatever drew them.
    judges: Mapping[str, str] = {"stickers": "stickers", "photos": "stickers", "unknown": "stickers"}
    judge_methods = ("ask",)
    picture_layouts = ("numbered", "grids")
    level_2 = (
        "entity - whole", "attribute - color", "relation - spatial", "other - count",
    )  # fmt: skip
    card: Mapping[str, str] = {
        "measures": "everything that a dense caption of a sticker scene says",
        "paper": "none; made for this package in the form of DPG-Bench (Hu et al., ELLA, arXiv:2403.05135)",
        "data": "200 scenes of the sticker world, splits test_seen and test_unseen, level easy, 4 pictures each",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0",
        "scorer": "the rules of TencentQQGYLab/ELLA, commit 3c228f1, on the judge's answers",
        "worth": "Sticker scenes only: no figure here compares with one of DPG-Bench.",
    }

    @cached_property
    def scenes(self) -> Mapping[str, Any]:
        """Item id -> scene, kind by kind, half of each kind unseen (counts are never held out)."""
        from blip3o.stickers import SceneConfig, make_scene

        found = {}
        for kind in KINDS:
            world = SceneConfig.level("easy", kinds=((kind, 1.0),))
            splits = SPLITS[:1] if kind == "counting" else SPLITS
            for split in splits:
                index = taken = 0
                while taken < PER_KIND[kind] // len(splits):
                    scene = make_scene(split, index, world)
                    if len(scene.stickers) >= FEWEST_STICKERS[kind]:
                        found[f"{kind}-{split}-{index:04d}"] = scene
                        taken += 1
                    index += 1
        return found

    @cached_property
    def _graphs(self) -> Mapping[str, Mapping[int, Node]]:
        from blip3o.stickers.question_graph import question_graph

        return {id: {n.id: n for n in question_graph(s)} for id, s in self.scenes.items()}

    @cached_property
    def rows(self) -> Sequence[rules.Row]:
        return [
            rules.Row(id, node.id, node.parents or (0,), node.question.fact.tuple)
            for id, graph in self._graphs.items()
            for node in graph.values()
        ]

    def question(self, item_id: str, proposition_id: int) -> str:
        """A `SceneQuestion`: the text, and the fact for judges that detect."""
        return self._graphs[item_id][proposition_id].question

    def samples(self) -> Sequence[Sample]:
        """The captions, kind by kind; metadata holds the scene's place in the world and its questions."""
        from blip3o.stickers.captions import long_caption

        return [
            Sample(
                id=id,
                number=number,
                group=scene.kind,
                prompt=long_caption(scene),
                metadata={
                    "id": id,
                    "split": scene.split,
                    "index": scene.index,
                    "prompt": long_caption(scene),
                    "questions": [
                        {
                            "proposition_id": node.id,
                            "dependency": list(node.parents),
                            "tuple": node.question.fact.tuple,
                            "question": str(node.question),
                        }
                        for node in self._graphs[id].values()
                    ],
                },
            )
            for number, (id, scene) in enumerate(self.scenes.items())
        ]

    def digest(self) -> str:
        content = [[s.id, s.prompt, s.metadata] for s in self.samples()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
