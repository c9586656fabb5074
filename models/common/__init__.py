"""What the families share: features and targets, layers, losses, weights, and the registry that builds a model."""
