"""What every process uses: errors, files, streams, other processes. It knows nothing of models or data."""
