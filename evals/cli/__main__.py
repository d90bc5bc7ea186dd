"""``python -m evals.cli``: the same as ``blip3o-eval``."""

from evals.cli.main import main

if __name__ == "__main__":
    main(prog_name="blip3o-eval")
