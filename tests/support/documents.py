"""Texts of documents for tests."""

from __future__ import annotations

from pathlib import Path

RIVERS = "The Rhine flows from the Alps to the North Sea."
LAKES = "Lake Constance lies between three countries."


def paragraph(number: int, sentences: int = 6) -> str:
    """A paragraph that no other number has."""
    return " ".join(f"Sentence {at} of paragraph {number} tells about topic{number}." for at in range(sentences))


def manual(parts: int = 4, paragraphs: int = 5) -> list[str]:
    """The paragraphs and headings of a Markdown document of several sections."""
    lines = ["# Manual"]
    for part in range(parts):
        lines.append(f"## Part {part}")
        lines += [paragraph(100 * part + at) for at in range(paragraphs)]
    return lines


def markdown(lines: list[str]) -> str:
    """The lines as one Markdown text."""
    return "\n\n".join(lines) + "\n"


def write_atlas(root: Path) -> None:
    """Writes a folder of four files in four formats."""
    write_tree(
        root,
        {
            "rivers.md": f"# Rivers\n\n{RIVERS}\n",
            "lakes/constance.txt": LAKES,
            "manual.md": markdown(manual(parts=5)),
            "table.csv": "name,length\nRhine,1233\nElbe,1094\n",
        },
    )


def empty(tree: Path) -> None:
    """Deletes the files, and keeps the folder."""
    for path in [*tree.rglob("*.*")]:
        path.unlink()


def write_tree(root: Path, files: dict[str, str]) -> None:
    """Writes files below a folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
