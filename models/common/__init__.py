"""What the families of models share: features, layers, losses, weights, and the registry that builds a model."""
