"""Fit a model: hardware, order of the rows, training steps, callbacks, checkpoints."""
