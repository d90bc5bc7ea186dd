"""The entry point `lmms_eval.models`: models of ours as `lmms-eval --model blip3o`.

lmms-eval loads this at every start, so it names classes and imports none of them.
"""

from __future__ import annotations

from typing import Any


def manifests() -> list[Any]:
    """What lmms-eval registers: a chat and a simple class under the name blip3o."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest(
            model_id="blip3o",
            simple_class_path="evals.lmms.adapter.Blip3oSimple",
            chat_class_path="evals.lmms.adapter.Blip3oChat",
            aliases=("blip3o_eval",),
        )
    ]
