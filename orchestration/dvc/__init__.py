"""Everything that relies on DVC's internals: the graph, the bookkeeping of a stage, dvc.lock."""
