"""The report: an overview, a page for each model and each data set, and a comparison of two revisions."""
