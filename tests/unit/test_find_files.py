"""Files are found in order, by pattern, and never outside the root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge_base.documents.files import FoundFile, RefusedFile, find_files
from knowledge_base.errors import InvalidInputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("b.md", "a.txt", "docs/c.md", "docs/deep/d.md", "docs/.hidden.md", ".git/config", "CVS/e.md"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def names(root: Path, pattern: str = "**/*") -> list[str]:
    return [found.name for found in find_files(root, pattern) if isinstance(found, FoundFile)]


def refusals(root: Path, pattern: str = "**/*") -> dict[str, str]:
    return {found.name: found.reason for found in find_files(root, pattern) if isinstance(found, RefusedFile)}


def test_files_come_sorted_without_hidden_ones_and_version_control(root: Path) -> None:
    assert names(root) == ["a.txt", "b.md", "docs/c.md", "docs/deep/d.md"]
    assert refusals(root) == {}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.md", ["b.md"]),
        ("**/*.md", ["b.md", "docs/c.md", "docs/deep/d.md"]),
        ("docs/*", ["docs/c.md"]),
        ("docs/**", ["docs/c.md", "docs/deep/d.md"]),
        ("**/deep/**/*.md", ["docs/deep/d.md"]),
        ("*/*/[a-d].md", ["docs/deep/d.md"]),
        ("docs/.*", ["docs/.hidden.md"]),
        ("**/**/**/**/nothing", []),
    ],
)
def test_pattern_says_which(root: Path, pattern: str, expected: list[str]) -> None:
    assert names(root, pattern) == expected


def test_file_comes_with_its_size_and_time(root: Path) -> None:
    os.utime(root / "b.md", (0, 1_500_000_000.25))

    (found,) = find_files(root, "b.md")

    status = (root / "b.md").stat()
    assert found == FoundFile(root / "b.md", "b.md", 4, 1_500_000_000.25, status.st_ctime, status.st_ino)


def test_root_may_be_one_file(root: Path) -> None:
    assert names(root / "a.txt") == ["a.txt"]


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*", "docs/../../*", "a/" * 60 + "b", "x\x00"])
def test_pattern_that_leads_out_or_is_none_is_refused(root: Path, pattern: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        find_files(root, pattern)

    assert caught.value.field == "pattern"


def test_root_that_does_not_exist_is_refused(root: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        find_files(root / "missing")

    assert caught.value.field == "path"


def test_root_that_is_a_pipe_is_refused_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InvalidInputError, match="neither"):
        find_files(tmp_path / "pipe")


def test_link_to_a_file_of_the_root_is_found_and_one_to_a_folder_is_not_walked_twice(root: Path) -> None:
    (root / "again.md").symlink_to(root / "docs" / "c.md")
    (root / "again").symlink_to(root / "docs", target_is_directory=True)

    assert names(root) == ["a.txt", "again.md", "b.md", "docs/c.md", "docs/deep/d.md"]
    assert refusals(root) == {}


def test_link_to_a_hidden_folder_is_reported(root: Path) -> None:
    (root / "history").symlink_to(root / ".git", target_is_directory=True)

    assert refusals(root) == {"history": "is a link to a hidden folder"}


def test_link_out_of_the_root_is_reported_also_on_the_way_to_a_pattern(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "e.md").write_text("secret")
    (root / "out").symlink_to(tmp_path / "outside", target_is_directory=True)

    assert refusals(root, "out/*.md") == {"out": "is a link that leads out of the folder"}


def test_root_that_is_a_link_itself_is_walked(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root, target_is_directory=True)

    assert names(tmp_path / "link", "*.md") == ["b.md"]


def test_what_the_pattern_does_not_name_is_not_reported(root: Path) -> None:
    os.mkfifo(root / "pipe.txt")

    assert refusals(root, "**/*.md") == {}
    assert list(refusals(root, "*.txt")) == ["pipe.txt"]


def test_folder_that_vanishes_is_reported_and_the_rest_goes_on(root: Path) -> None:
    search = find_files(root)
    first = next(search)
    (root / "docs" / "c.md").unlink()
    for path in ("docs/deep/d.md", "docs/.hidden.md"):
        (root / path).unlink()
    (root / "docs" / "deep").rmdir()
    (root / "docs").rmdir()

    rest = list(search)

    assert [first.name, *(found.name for found in rest)] == ["a.txt", "b.md", "docs"]
    assert isinstance(rest[-1], RefusedFile)


@pytest.fixture
def deep_folder(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "deep"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("f.txt", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    yield root
    # What removes the folders of tests calls itself for each level.
    subprocess.run(["rm", "-rf", root], check=True)


def test_folders_may_be_nested_deeper_than_python_calls(deep_folder: Path) -> None:
    assert names(deep_folder) == ["d/" * (sys.getrecursionlimit() + 100) + "f.txt"]
