"""The report: one page a model and a data set, an overview, a comparison."""
