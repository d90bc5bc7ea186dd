"""`blip3o-eval convert-mmdet`: the weights of GenEval's own detector as a folder that the judge loads."""

from __future__ import annotations

import click


@click.command("convert-mmdet")
@click.argument("file", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.  [default: two lines]")
def command(file: str, out: str, as_json: bool) -> None:
    """Convert FILE, a Mask2Former checkpoint of mmdet 2.x, to the new folder OUT.

    \b
    blip3o-eval convert-mmdet mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth official
    blip3o-eval run --task geneval --model images:DIR --judge mask2former:official

    Only that very file, told by its sha256, gives the label "official".
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from evals.mmdet.convert import convert_file

    done = convert_file(Path(file).expanduser(), Path(out).expanduser())
    if as_json:
        click.echo(json.dumps({**asdict(done), "folder": str(done.folder)}))
        return
    click.echo(
        f"{done.folder}: {done.num_tensors} tensors, {done.num_parameters / 1e6:.1f} M parameters, "
        f"judge mask2former:{done.folder}, detector={done.label}"
    )
    if done.label != "official":
        click.echo(
            f"note: the sha256 of {file} is {done.source_sha256[:16]}..., which is not the file GenEval used", err=True
        )
