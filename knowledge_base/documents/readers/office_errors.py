"""Where the errors of the office libraries become ours."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from knowledge_base.documents.archives import open_archive, verify_members
from knowledge_base.documents.unreadable import UnreadableFileError


@contextmanager
def office_file(data: bytes, what: str) -> Iterator[None]:
    """Checks the archive that an office file is, and reports as broken what its reader stumbles over inside.

    Args:
        data: The bytes of the file.
        what: What it should be, such as ``Word document``.

    Raises:
        UnreadableFileError: The archive is refused, or the reader failed.
    """
    with open_archive(data) as archive:
        verify_members(archive)
    try:
        yield
    except UnreadableFileError:
        raise
    except (
        zipfile.BadZipFile, zlib.error, struct.error, LookupError, ValueError, TypeError, AttributeError, SyntaxError,
        NotImplementedError, OSError, EOFError,
    ):  # fmt: skip
        raise _broken(what) from None
    except Exception as error:
        if type(error).__module__.split(".")[0] in {"docx", "pptx", "openpyxl", "lxml", "defusedxml"}:
            raise _broken(what) from None
        raise


def _broken(what: str) -> UnreadableFileError:
    return UnreadableFileError(f"is broken: it is no {what} that can be read")
