"""Commands of ``blip3o-eval``, one file each, imported when they are called."""
