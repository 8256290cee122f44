"""Where files are kept: a folder, or a bucket of S3 or what speaks as it does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from core.batch_settings import StorageSettings
from core.errors import ConfigurationMistake, NotFound, StorageUnavailable

if TYPE_CHECKING:
    from obstore import GetResult

# S3 takes parts of 5 MiB or more; two of them are in memory while a file comes.
_PART: Final = 5 * 2**20
_PIECE: Final = 2**18
_WRITERS: Final = 2
_RETRIES: Final = 3


class Storage:
    """Objects by name. A name appears when all of it was written; a writer that fails leaves nothing.

    `folder` is where they are on this machine, if they are. None is ever changed there.
    """

    def __init__(self, store: ObjectStore, *, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def write(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Raises what `pieces` raises, and `StorageUnavailable`."""
        with _translated(name):
            await obstore.put_async(
                self._store, name, pieces, use_multipart=True, chunk_size=_PART, max_concurrency=_WRITERS
            )

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Opened when this returns, so that a missing object is `NotFound` and no broken stream."""
        with _translated(name):
            found = await obstore.get_async(self._store, name)
        return _pieces(name, found)

    async def save(self, name: str, path: Path) -> None:
        """The object as a file of this machine: a copy, or a link where it is one. Raises `NotFound`."""
        pieces = await self.read(name)
        if self._folder is not None:
            # A copy of a large file beside a busy database makes everybody's commits wait for the disk.
            await asyncio.to_thread(path.symlink_to, self._folder / name)
            return
        with await asyncio.to_thread(path.open, "wb") as file:
            async for piece in pieces:
                file.write(piece)

    async def remove(self, name: str) -> None:
        """Nothing happens where there is no such object."""
        try:
            with _translated(name):
                await obstore.delete_async(self._store, name)
        except NotFound:
            pass


async def _pieces(name: str, found: "GetResult") -> AsyncIterator[bytes]:
    with _translated(name):
        async for piece in found.stream(min_chunk_size=_PIECE):
            yield bytes(piece)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{name} is not kept any more.") from error
    except (BaseError, OSError) as error:
        raise StorageUnavailable("the storage of files does not serve us now") from error


def open_storage(settings: StorageSettings) -> Storage:
    """Makes the folder; a bucket is reached at its first use. Raises `ConfigurationMistake`."""
    address = urlsplit(settings.url)
    if address.scheme == "s3":
        prefix = address.path.strip("/") or None
        return Storage(S3Store(address.netloc, prefix=prefix, **_s3_options(settings)))
    if address.scheme:
        raise ConfigurationMistake(f"PENSTOCK_STORAGE__URL: {address.scheme}:// is no folder and not s3://.")
    try:
        folder = Path(settings.url).resolve()
        return Storage(LocalStore(folder, mkdir=True), folder=folder)
    except (BaseError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationMistake(f"PENSTOCK_STORAGE__URL: {settings.url} is no folder: {reason}") from error


def _s3_options(settings: StorageSettings) -> Any:
    given = {"endpoint": settings.s3_endpoint, "region": settings.s3_region}
    if settings.s3_access_key and settings.s3_secret_key:
        given["access_key_id"] = settings.s3_access_key.get_secret_value()
        given["secret_access_key"] = settings.s3_secret_key.get_secret_value()
    options: dict[str, Any] = {name: value for name, value in given.items() if value}
    options["client_options"] = {
        "allow_http": settings.s3_endpoint.startswith("http://"),
        "connect_timeout": settings.s3_connect_timeout,
        "timeout": settings.s3_timeout,
    }
    # Left alone, a request to a bucket that is away is tried again for three minutes.
    options["retry_config"] = {"max_retries": _RETRIES, "retry_timeout": settings.s3_timeout}
    return options
