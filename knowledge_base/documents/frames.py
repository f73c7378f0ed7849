"""How extraction and its worker processes talk: frames of JSON with their length before them.

JSON, and not pickle: a file that takes over its reader must not take over the process that asked. Answers come in
small frames, since decoding one holds up every other thread.

    request:  {"name", "media_type", "max_characters", "seconds", "size"} and then the bytes of the file
    at first: {"ready"}                                    from the worker, once it can serve
    answer:   {"blocks": [[kind, text, level, page], …]} any number of times, and then one of
              {"title", "media_type", "pages", "retire"}
              {"reason", "limit", "retire"}                the file cannot be read
              {"missing", "retire"}                        a library is not installed
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 4 * 1024 * 1024


class BrokenFrameError(Exception):
    """The other side ended, or said something that is no frame."""


def write_frame(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Writes a message.

    Args:
        stream: The pipe.
        message: What JSON can hold.
    """
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    stream.write(_LENGTH.pack(len(body)) + body)


def read_frame(stream: IO[bytes]) -> dict[str, Any]:
    """Reads a message.

    Args:
        stream: The pipe.

    Raises:
        BrokenFrameError: The pipe has ended, or holds no frame.
    """
    (length,) = _LENGTH.unpack(read_exactly(stream, _LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise BrokenFrameError("a frame that is too long")
    try:
        message = json.loads(read_exactly(stream, length))
    except (ValueError, RecursionError):
        raise BrokenFrameError("a frame that is no JSON") from None
    if not isinstance(message, dict):
        raise BrokenFrameError("a frame that is no message")
    return message


def read_exactly(stream: IO[bytes], size: int) -> bytes:
    """Reads so many bytes.

    Args:
        stream: The pipe.
        size: How many.

    Raises:
        BrokenFrameError: The pipe has ended before.
    """
    data = stream.read(size)
    if len(data) != size:
        raise BrokenFrameError("the end of the pipe")
    return data
