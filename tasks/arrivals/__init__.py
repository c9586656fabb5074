"""New labelled rows: check the files in data/incoming, keep the sound ones as batches, measure their drift."""
