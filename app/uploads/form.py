"""The `file` part of a multipart form, streamed: nothing is spooled, nothing is held."""

from collections import deque
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import BadRequest, Unprocessable

FIELD = "file"


class FormFile:
    """Reads a form from `chunks` up to and through its part named `file`.

    `find` must be awaited before `read`; other parts are skipped. Raises `BadRequest` for a malformed form
    and `Unprocessable` for one without exactly one `file`.
    """

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        self.filename = ""
        self._chunks = chunks
        self._data: deque[bytes] = deque()
        self._files = 0
        self._reading = False
        self._ended = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._parser = self._make_parser(content_type)

    async def find(self) -> None:
        """Read until the file's own bytes begin."""
        while not self._files:
            if not await self._advance():
                raise _one_file("There is no part named `file` in the form.")

    async def read(self) -> AsyncIterator[bytes]:
        """The file's bytes, to the end of the form."""
        more = True
        while more or self._data:
            while self._data:
                yield self._data.popleft()
            more = more and await self._advance()

    async def _advance(self) -> bool:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            if not self._ended:
                raise _malformed("The form ends before its closing boundary.")
            return False
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed("The form cannot be parsed.") from error
        return True

    def _make_parser(self, content_type: str) -> MultipartParser:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise _malformed("The Content-Type names no boundary.")
        callbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_content,
            "on_part_data": self._take,
            "on_end": self._end,
        }
        try:
            return MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict, spelt as a dict
        except FormParserError as error:
            raise _malformed("The form's boundary is too long.") from error

    def _begin_part(self) -> None:
        self._reading = False
        self._disposition = b""

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode():
            return
        self._files += 1
        if self._files > 1:
            raise _one_file("The form has more than one part named `file`.")
        self._reading = True
        self.filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._reading:
            self._data.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


def _malformed(detail: str) -> BadRequest:
    hint = "Let a library build the multipart body, or send the bytes alone with `?filename=`."
    return BadRequest("malformed_form", detail, hint=hint)


def _one_file(detail: str) -> Unprocessable:
    return Unprocessable("one_file_expected", detail, hint="Send one file, as the part `file`.", field=FIELD)
