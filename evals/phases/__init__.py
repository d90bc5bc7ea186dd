"""The phases of a run: what it consists of, making outputs, judging them, and surviving what goes wrong."""
