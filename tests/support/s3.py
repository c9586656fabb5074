"""A DVC remote on a real S3 server on this machine."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from tests.support.workspaces import DVC


@contextmanager
def s3_remote(repository: Path, settings: dict[str, str]) -> Iterator[None]:
    """Give a repository a default remote on S3. settings: the environment of DVC's commands."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys).create_bucket(Bucket="store")
    for words in (
        ["remote", "add", "--force", "--default", "store", "s3://store/cache"],
        ["remote", "modify", "store", "endpointurl", address],
        ["remote", "modify", "store", "access_key_id", "any"],
        ["remote", "modify", "store", "secret_access_key", "any"],
    ):
        subprocess.run([*DVC, *words], cwd=repository, env=settings, check=True, capture_output=True)
    yield
    server.stop()
