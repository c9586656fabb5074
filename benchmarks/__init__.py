"""Benchmarks: how fast training is, against the `fit` that a user would write, in the same run."""
