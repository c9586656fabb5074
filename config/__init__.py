"""What every other folder may use: the typed parameters, the paths of a workspace, the errors meant for users."""
