"""Make the data: download a source, ingest it, split it and normalize it."""
