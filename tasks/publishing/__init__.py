"""Write what a training publishes: SavedModel, architecture, model card, metrics and facts of the run."""
