"""Keeps objects in a bucket of an S3-compatible store; boto3 finds who may in the environment, as ever."""

import base64
import hashlib
from collections.abc import Callable, Set
from typing import Any, TypeVar

from edge_cl.errors import ConfigError, StoreDamagedError, StoreError

CONNECT_S, READ_S, TRIES = 5, 30, 3
MISSING = ("404", "NoSuchKey", "NotFound")

T = TypeVar("T")


class S3Store:
    """See `ObjectStore`; a bucket must be there already."""

    def __init__(self, bucket: str, prefix: str, endpoint: str = "") -> None:
        if not bucket:
            raise ConfigError("the store has no bucket: give s3://BUCKET/PREFIX")
        self._bucket, self._prefix = bucket, prefix
        self._client = _client(endpoint)
        self.check()

    def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore`; the store compares the hash that is sent along before it says yes."""
        name, digest = self._name(key), base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
        self._asked(
            lambda: self._client.put_object(Bucket=self._bucket, Key=name, Body=data, ChecksumSHA256=digest)
        )

    def get(self, key: str) -> bytes:
        """See `ObjectStore`."""
        name = self._name(key)
        data = self._asked(lambda: self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read())
        if hashlib.sha256(data).hexdigest() != key:
            raise StoreDamagedError(f"{name} in {self._bucket} is not what was kept: restore a copy of it")
        return data

    def remove(self, key: str) -> None:
        """See `ObjectStore`; in a bucket that keeps versions, its rules must destroy the old ones."""
        name = self._name(key)
        self._asked(lambda: self._client.delete_object(Bucket=self._bucket, Key=name))

    def sweep(self, used: Set[str], before: int) -> int:
        """See `ObjectStore`."""
        count = 0
        pages = self._client.get_paginator("list_objects_v2")
        listed = self._asked(
            lambda: list(
                pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}/" if self._prefix else "")
            )
        )
        for each in (each for page in listed for each in page.get("Contents", ())):
            key = each["Key"].rpartition("/")[2]
            if key.isalnum() and key not in used and each["LastModified"].timestamp() < before:
                self.remove(key)
                count += 1
        return count

    def check(self) -> None:
        """See `ObjectStore`."""
        self._asked(lambda: self._client.head_bucket(Bucket=self._bucket))

    def _name(self, key: str) -> str:
        if not key.isalnum():
            raise ValueError(f"{key!r} is no key")
        return f"{self._prefix}/{key[:2]}/{key}" if self._prefix else f"{key[:2]}/{key}"

    def _asked(self, ask: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return ask()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            kind = StoreDamagedError if code in MISSING else StoreError
            raise kind(
                f"the store refuses ({code or 'no reason given'}): look at the bucket {self._bucket}"
            ) from error
        except BotoCoreError as error:
            raise StoreError(
                f"the store cannot be asked ({type(error).__name__}): check its address and the network"
            ) from error


def _client(endpoint: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError as error:
        raise ConfigError("boto3 is not installed: pip install 'edge-cl[s3]'") from error
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
    )
    try:
        return boto3.client("s3", endpoint_url=endpoint or None, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the store's address cannot be used ({error}): look at --s3-endpoint") from error
