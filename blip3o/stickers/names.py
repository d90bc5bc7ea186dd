"""The words of the sticker world: classes, colours, styles and relations, in GenEval's order and spelling."""

from __future__ import annotations

# The 80 class names of GenEval's object_names.txt (COCO's order, four names changed).
CLASSES: tuple[str, ...] = tuple(
    """person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,
parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,
suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,
bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,
chair,couch,potted plant,bed,dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,cell phone,
microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush""".replace(
        "\n", ""
    ).split(",")
)
COLORS: tuple[str, ...] = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
STYLES: tuple[str, ...] = ("fluent", "noto", "twemoji")
TRAINING_STYLES: tuple[str, ...] = ("fluent", "noto")
UNSEEN_STYLE = "twemoji"
# Its licence asks for this wherever its pictures are shown.
UNSEEN_STYLE_CREDIT = "Twemoji graphics by Twitter, Inc and other contributors, CC-BY 4.0, modified"
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
TAGS: tuple[str, ...] = (
    "single_object", "two_object", "counting", "colors", "position", "color_attr",
)  # fmt: skip
