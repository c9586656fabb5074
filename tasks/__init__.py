"""The steps of the pipeline, one file each: a plain function that does the work and the Prefect task around it."""

import logging

# Prefect sends what this package logs to its server and terminal (pyproject.toml: extra_loggers), from INFO on.
logging.getLogger(__name__).setLevel(logging.INFO)
