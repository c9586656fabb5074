"""Everything that touches DVC's internals: the graph, one stage's bookkeeping, dvc.lock."""
