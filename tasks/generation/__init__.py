"""Generation benchmarks: a model draws, a judge looks, official rules give the verdict."""
