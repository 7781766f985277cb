"""A real S3-compatible server on this machine: moto's, in a thread, with one bucket."""

import contextlib
from collections.abc import Iterator

from moto.server import ThreadedMotoServer

BUCKET = "fleet"
# What boto3 finds in its environment; the server believes anybody.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """Start the server with an empty bucket BUCKET, and yield its address; ENVIRONMENT has to be set."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()
