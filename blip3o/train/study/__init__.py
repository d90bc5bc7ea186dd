"""The paper's study of designs: {CLIP + flow, CLIP + MSE, VAE + flow} x {sequential, joint} at equal compute.

``settings`` says what a point is, ``compute`` how its budget is matched, ``plan`` cuts it into stages that points
share; these three import no torch. ``data``, ``model`` and ``losses`` are what the stages train with, ``run`` trains
one stage in a folder, ``ceiling`` measures what a target's decoder can show at best.
"""
