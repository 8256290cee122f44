"""A multipart form with one file in it, taken apart while it comes: the file is never whole in memory."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from api.schemas.file_create import FileCreate
from core.errors import BadInput, BodyTooLarge, InvalidField
from queues.files import Described
from queues.requests.validation import validate

_LONGEST_FIELD: Final = 4096
_MOST_FIELDS: Final = 16
_LONGEST_NAME: Final = 255


class Upload:
    """`pieces` gives the file's bytes as they arrive; `described` is what the other fields said."""

    def __init__(self, request: Request, *, largest: int) -> None:
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BadInput("Send multipart/form-data with the fields purpose and file.")
        self._body = request.stream()
        self._largest = largest
        self._parser = MultipartParser(boundary, self._callbacks())
        self._ready: list[bytes] = []
        self._fields: dict[str, bytes] = {}
        self._header = self._value = b""
        self._disposition: dict[bytes, bytes] = {}
        self._size = 0
        self._filename: str | None = None
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises `BadInput` and `BodyTooLarge`."""
        async for chunk in self._body:
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise BadInput("The body is not the multipart form that its header announces.") from error
            ready, self._ready = self._ready, []
            for piece in ready:
                yield piece
        if not self._ended:
            raise BadInput("The body ends before its form does.")

    def described(self) -> Described:
        if self._filename is None:
            raise InvalidField("file", "Is missing: send the file in a part of this name.")
        said = validate(FileCreate, _document(self._fields))
        lifetime = timedelta(seconds=said.expires_after.seconds) if said.expires_after else None
        return Described(self._filename, said.purpose, lifetime)

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._on_header(data[start:end], b""),
            "on_header_value": lambda data, start, end: self._on_header(b"", data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._header = self._value = b""
        self._disposition = {}

    def _on_header(self, name: bytes, value: bytes) -> None:
        self._header += name
        self._value += value

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = parse_options_header(self._value)[1]
        self._header = self._value = b""

    @property
    def _name(self) -> str:
        return self._disposition.get(b"name", b"").decode(errors="replace")[:_LONGEST_NAME]

    def _open(self) -> None:
        if self._name == "file":
            if self._filename is not None:
                raise InvalidField("file", "Is there twice: send one file in each request.")
            self._filename = _plain(self._disposition.get(b"filename", b"file"))
        else:
            self._fields.setdefault(self._name, b"")
            if len(self._fields) > _MOST_FIELDS:
                raise BadInput(f"The form has more than {_MOST_FIELDS} fields.")

    def _take(self, data: bytes) -> None:
        if self._name == "file":
            self._size += len(data)
            if self._size > self._largest:
                raise BodyTooLarge(f"The file is larger than {self._largest} bytes: split it.")
            self._ready.append(data)
            return
        self._fields[self._name] += data
        if len(self._fields[self._name]) > _LONGEST_FIELD:
            raise InvalidField(self._name, f"Is longer than {_LONGEST_FIELD} bytes.")

    def _end(self) -> None:
        self._ended = True


def _plain(filename: bytes) -> str:
    """What may stand in a header and in a table."""
    text = filename.decode(errors="replace").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in text if c.isprintable())[:_LONGEST_NAME] or "file"


def _document(fields: dict[str, bytes]) -> dict[str, Any]:
    """`expires_after[seconds]` and its like as an object, as OpenAI's clients mean them."""
    document: dict[str, Any] = {}
    for name, value in fields.items():
        text = value.decode(errors="replace")
        outer, bracket, inner = name.partition("[")
        if bracket:
            number = int(text) if text.isascii() and text.isdigit() else text
            group = document.setdefault(outer, {})
            if isinstance(group, dict):
                group[inner.removesuffix("]")] = number
        else:
            document[name] = text
    return document
