"""One contract, in a folder and in a bucket."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from core.batch_settings import StorageSettings
from core.errors import ConfigurationMistake, NotFound, StorageUnavailable
from queues.storage import Storage, open_storage
from tests.faults.proxy import Fault, Link

SOON = timedelta(milliseconds=500)
HANGS = 30.0
PIECE = b"0123456789abcdef" * 65_536  # 1 MiB


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(StorageSettings(url=str(tmp_path / "a new folder")))
    return open_storage(bucket_settings(request.getfixturevalue("s3_address")))


def bucket_settings(address: str) -> StorageSettings:
    bucket = f"b{secrets.token_hex(6)}"
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    client.create_bucket(Bucket=bucket)
    return StorageSettings(
        url=f"s3://{bucket}/penstock",
        s3_endpoint=address,
        s3_region="us-east-1",
        s3_access_key=SecretStr("k"),
        s3_secret_key=SecretStr("s"),
    )


async def pieces(count: int, *, then: Exception | None = None) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE
    if then is not None:
        raise then


async def content(storage: Storage, name: str) -> bytes:
    return b"".join([piece async for piece in await storage.read(name)])


@pytest.mark.parametrize("count", [0, 1, 12])
async def test_what_was_written_is_read(storage: Storage, count: int) -> None:
    await storage.write("file_1", pieces(count))

    assert await content(storage, "file_1") == PIECE * count


async def test_a_writer_that_fails_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(ValueError, match="gone"):
        await storage.write("file_1", pieces(7, then=ValueError("gone")))

    with pytest.raises(NotFound):
        await storage.read("file_1")


async def test_what_is_removed_is_not_found(storage: Storage) -> None:
    await storage.write("file_1", pieces(1))

    await storage.remove("file_1")
    await storage.remove("file_1")

    with pytest.raises(NotFound):
        await storage.read("file_1")


async def test_a_storage_that_is_gone_is_said(tmp_path: Path) -> None:
    storage = open_storage(StorageSettings(url=str(tmp_path / "files")))
    (tmp_path / "files").rmdir()
    (tmp_path / "files").write_text("no folder any more")

    with pytest.raises(StorageUnavailable):
        await storage.write("file_1", pieces(1))


def test_an_unknown_kind_of_storage_stops_the_start() -> None:
    with pytest.raises(ConfigurationMistake, match="ftp"):
        open_storage(StorageSettings(url="ftp://somewhere"))


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationMistake, match="PENSTOCK_STORAGE__URL"):
        open_storage(StorageSettings(url=str(tmp_path / "file" / "below")))


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.BLACK_HOLE, Fault.HALF_OPEN])
async def test_a_bucket_behind_a_dead_link_is_given_up_or_found_again(s3_address: str, fault: Fault) -> None:
    settings = bucket_settings(s3_address)
    link = Link("bucket", [int(s3_address.rpartition(":")[2])])
    await link.open()
    short = {"s3_connect_timeout": SOON, "s3_timeout": SOON, "s3_endpoint": f"http://127.0.0.1:{link.port}"}
    storage = open_storage(settings.model_copy(update=short))
    try:
        await storage.write("file_1", pieces(1))
        link.fail(fault)
        if fault is not Fault.HALF_OPEN:  # there the next attempt has a connection that works
            async with asyncio.timeout(HANGS):
                with pytest.raises(StorageUnavailable):
                    await content(storage, "file_1")
        link.heal()
        async with asyncio.timeout(HANGS):
            assert await _read_again(storage, "file_1") == PIECE
    finally:
        await link.close()


async def _read_again(storage: Storage, name: str) -> bytes:
    """At the latest after a few attempts: a pooled connection may still be dead."""
    while True:
        try:
            return await content(storage, name)
        except StorageUnavailable:
            continue
