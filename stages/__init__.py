"""The stages of dvc.yaml, run side by side: which there are, when each may start, in which process it runs."""
