"""The documentation: pages made from the code are up to date, and nothing that they name is missing."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import pytest
import typer

from knowledge_base import errors
from knowledge_base.interfaces.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
ERRORS = [name for name, _ in inspect.getmembers(errors, inspect.isclass) if name.endswith("Error")]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page: Path, heading: str) -> str:
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(heading, "")


def test_settings_page_is_up_to_date():
    generator = runpy.run_path(str(DOCS / "generate_settings.py"))

    written = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")

    assert written == generator["page"](), "run make docs"


def test_settings_page_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch):
    generator = runpy.run_path(str(DOCS / "generate_settings.py"))
    before = generator["page"]()

    monkeypatch.setenv("KB_TIMEOUTS__REDIS", "7")
    monkeypatch.setenv("KB_NAMESPACE", "elsewhere")

    assert generator["page"]() == before


@pytest.mark.parametrize("name", ERRORS)
def test_errors_page_says_when_each_is_raised_and_what_to_do(name: str):
    text = " ".join(section(DOCS / "reference" / "errors.md", name).split())

    assert text, f"{name} has no section"
    assert ("Retryable" in text) == getattr(errors, name).retryable
    assert ("Not retryable" in text) != getattr(errors, name).retryable


@pytest.mark.parametrize("name", COMMANDS)
def test_command_line_page_has_each_command_with_its_options(name: str):
    text = section(DOCS / "reference" / "command-line.md", f"kb {name}")
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    options = {
        option
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
        for option in parameter.opts
        if option.startswith("--")
    }

    assert options - set(re.findall(r"--[a-z-]+", text)) == set()


def test_command_line_page_has_no_command_that_does_not_exist():
    text = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^## kb (\w+)$", text, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        found = (page.parent / target).resolve() if target else page

        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), f"{target}#{anchor}"
