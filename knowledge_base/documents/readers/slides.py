"""Presentations (pptx): a page per slide."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.formats import MEDIA_TYPES, SLIDES
from knowledge_base.documents.readers.block_list import BlockList
from knowledge_base.documents.readers.office_errors import office_file
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

MAX_GROUP_DEPTH = 50


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads a presentation: the titles of slides as headings, their texts, tables and notes.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is broken or encrypted, explodes, or has no text.
    """
    import pptx

    with office_file(data, "presentation"):
        presentation = pptx.Presentation(io.BytesIO(data))
        blocks = BlockList(request.max_characters)
        slides = list(presentation.slides)
        for page, slide in enumerate(slides, start=1):
            _add_slide(slide, page, blocks)
        title = presentation.core_properties.title
        # The library's own template carries this one.
        title = None if title == "PowerPoint Presentation" else title
        return blocks.document(title=title or blocks.first_heading, media_type=MEDIA_TYPES[SLIDES], pages=len(slides))


def _add_slide(slide: Any, page: int, blocks: BlockList) -> None:
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        blocks.add("heading", title.text_frame.text, level=1, page=page)
    title_id = title.shape_id if title is not None else None
    _add_shapes((shape for shape in slide.shapes if shape.shape_id != title_id), page, blocks, depth=0)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        blocks.add("paragraph", slide.notes_slide.notes_text_frame.text, page=page)


def _add_shapes(shapes: Iterable[Any], page: int, blocks: BlockList, depth: int) -> None:
    if depth > MAX_GROUP_DEPTH:
        raise UnreadableFileError(f"is nested deeper than {MAX_GROUP_DEPTH} groups", limit=MAX_GROUP_DEPTH)
    for shape in shapes:
        if hasattr(shape, "shapes"):
            _add_shapes(shape.shapes, page, blocks, depth + 1)
        elif getattr(shape, "has_table", False):
            blocks.add_table(([cell.text for cell in row.cells] for row in shape.table.rows), page=page)
        elif shape.has_text_frame:
            _add_text(shape.text_frame, page, blocks)


def _add_text(frame: Any, page: int, blocks: BlockList) -> None:
    lines = [("  " * paragraph.level, paragraph.text.strip()) for paragraph in frame.paragraphs]
    lines = [(indent, text) for indent, text in lines if text]
    if len(lines) > 1:
        blocks.add("list", "\n".join(f"{indent}- {text}" for indent, text in lines), page=page)
    elif lines:
        blocks.add("paragraph", lines[0][1], page=page)
