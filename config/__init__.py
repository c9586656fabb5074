"""The parameters of params.yaml, typed and checked, and the paths of a workspace."""
