"""Use a trained model: what a SavedModel takes and answers, and predictions for files of rows."""
