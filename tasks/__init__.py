"""The steps of the pipeline, by subject. A step is a plain function, with a Prefect task around it."""

import logging

# Prefect sends what this package logs to its server and terminal (pyproject.toml: extra_loggers), from INFO on.
logging.getLogger(__name__).setLevel(logging.INFO)
