"""Search hyperparameters: proposals, the training of a trial, the store of the results, the winner."""
