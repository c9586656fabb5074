"""What the models are compared with: the recipes of the lecture notes, and baselines of scikit-learn."""
