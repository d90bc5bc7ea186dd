"""Benchmark plug-ins of blip3o-eval: understanding and generation tasks, found by `evals.discovery`."""

from __future__ import annotations

TASKS = {
    "geneval": (
        "tasks.generation.geneval:GenEval",
        "553 prompts about objects, counts, colours and positions, judged by a detector",
    ),
    "geneval_long": (
        "tasks.generation.geneval_long:GenEvalLong",
        "GenEval's objects and counts in rewritten prompts of about 100 words; compares with rewritten ones only",
    ),
    "dpg": (
        "tasks.generation.dpg:Dpg",
        "1,065 dense prompts, a graph of questions about each, judged by a VQA model",
    ),
    "dpg_stickers": (
        "tasks.generation.dpg_stickers:DpgStickers",
        "200 dense captions of sticker scenes, a graph of questions about each, judged by a detector",
    ),
    "fid": (
        "tasks.generation.fid:Fid",
        "distance of the pictures to real ones: MJHQ-30K, COCO captions, or any caption list",
    ),
    "fid_stickers": (
        "tasks.generation.fid_stickers:FidStickers",
        "distance of 1,000 pictures to real sticker scenes, by features of a sticker classifier",
    ),
    "clipscore": (
        "tasks.generation.clip_score:ClipScoreTask",
        "cosine between picture and prompt by a CLIP model: PartiPrompts, T2I-CompBench's prompts, any caption list",
    ),
    "vqascore": (
        "tasks.generation.vqa_score:VqaScoreTask",
        "probability that a vision-language model says Yes to the prompt: the same lists",
    ),
    "wise": (
        "tasks.generation.wise:Wise",
        "1,000 prompts that take knowledge to understand, three marks by a vision-language model",
    ),
    "wise_verified": (
        "tasks.generation.wise:WiseVerified",
        "WISE's second edition: other prompts and boundaries, one verdict by a vision-language model",
    ),
    "edit_stickers": (
        "tasks.generation.edit_stickers:EditStickers",
        "240 edits of sticker scenes by instruction, judged by a detector",
    ),
    "mme": (
        "tasks.understanding.mme:Mme",
        "2,374 yes/no questions in pairs about perception and cognition",
    ),
    "mmmu": (
        "tasks.understanding.mmmu:Mmmu",
        "900 college exam questions with pictures, in thirty subjects (val)",
    ),
    "vqav2": (
        "tasks.understanding.vqav2:Vqav2",
        "214,354 open questions about photographs, ten human answers each (val)",
    ),
    "textvqa": (
        "tasks.understanding.textvqa:Textvqa",
        "5,000 questions whose answers have to be read in the picture (val)",
    ),
    "realworldqa": (
        "tasks.understanding.realworldqa:RealWorldQa",
        "765 questions about scenes as a car or a passer-by sees them",
    ),
    "seedbench": (
        "tasks.understanding.seedbench:SeedBench",
        "17,990 multiple choice questions about pictures and video frames",
    ),
    "mmbench": (
        "tasks.understanding.mmbench:MmBench",
        "1,164 multiple choice questions, each with its options in several orders (en, dev)",
    ),
    "mme_stickers": (
        "tasks.understanding.mme_stickers:MmeStickers",
        "480 yes/no questions in pairs about sticker scenes, scored as MME",
    ),
    "vqa_stickers": (
        "tasks.understanding.vqa_stickers:VqaStickers",
        "391 open questions about sticker scenes, ten simulated annotators, scored as VQAv2",
    ),
    "mmmu_stickers": (
        "tasks.understanding.mmmu_stickers:MmmuStickers",
        "300 multiple choice questions about one or four sticker scenes, scored as MMMU",
    ),
    "caption_stickers": (
        "tasks.understanding.caption_stickers:CaptionStickers",
        "200 descriptions of sticker scenes: hallucinated objects (CHAIR) and object recall",
    ),
    "classify_stickers": (
        "tasks.understanding.classify_stickers:ClassifyStickers",
        "320 pictures of one sticker, to be named among 80 classes",
    ),
    "lmms": (
        "tasks.understanding.lmms:create",
        "any task of lmms-eval 0.7 on this run-time, lmms:NAME (`blip3o-eval lmms list`)",
    ),
    "mme_likelihood": (
        "tasks.understanding.likelihood:MmeLikelihood",
        "mme, by the log-likelihoods of yes and no instead of written answers",
    ),
    "mmmu_likelihood": (
        "tasks.understanding.likelihood:MmmuLikelihood",
        "mmmu, by the log-likelihoods of the letters",
    ),
    "mmbench_likelihood": (
        "tasks.understanding.likelihood:MmBenchLikelihood",
        "mmbench, by the log-likelihoods of the letters",
    ),
    "seedbench_likelihood": (
        "tasks.understanding.likelihood:SeedBenchLikelihood",
        "seedbench, by the log-likelihoods of the letters",
    ),
    "realworldqa_likelihood": (
        "tasks.understanding.likelihood:RealWorldQaLikelihood",
        "realworldqa, by the log-likelihoods of the letters",
    ),
    "mme_stickers_likelihood": (
        "tasks.understanding.likelihood:MmeStickersLikelihood",
        "mme_stickers, by the log-likelihoods of yes and no",
    ),
    "mmmu_stickers_likelihood": (
        "tasks.understanding.likelihood:MmmuStickersLikelihood",
        "mmmu_stickers, by the log-likelihoods of the letters",
    ),
}
"""Name -> (where the class lies, one line about it); nothing is imported until it is asked for."""
