"""The error of one file that cannot be read, while others can."""

from __future__ import annotations

from knowledge_base.errors import InvalidInputError


class UnreadableFileError(InvalidInputError):
    """A file, or a text, could not be read; its ``problem`` says why and holds none of its content.

    Args:
        reason: Why, as the end of a sentence that begins with the file's name, such as ``is encrypted``.
        limit: The limit that was passed, when there is one.
        field: The argument that it came in.
    """

    def __init__(self, reason: str, *, limit: float | None = None, field: str = "path") -> None:
        super().__init__(field, reason, limit=limit)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.problem, self.limit, self.field)


def _rebuild(reason: str, limit: float | None, field: str) -> UnreadableFileError:
    return UnreadableFileError(reason, limit=limit, field=field)
