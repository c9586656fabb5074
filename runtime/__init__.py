"""What every process needs: errors, files, streams, other processes. Nothing here is about models or data."""
