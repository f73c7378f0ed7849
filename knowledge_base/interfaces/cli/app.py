"""The application: its commands, and how each way to fail becomes one line and an exit code."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Any, Final

import typer

from knowledge_base._version import __version__
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError
from knowledge_base.interfaces.cli import (
    ask,
    backup,
    check,
    demo,
    documents,
    duplicates,
    evaluate,
    export,
    facts,
    import_,
    ingest,
    jobs,
    namespaces,
    prune,
    reindex,
    search,
    status,
)
from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl

DONE, FAILED, WRONG_USAGE, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130

# Old releases of typer take this error from click, new ones bring their own; both derive BadParameter from it.
_UsageError: Final[Any] = typer.BadParameter.__base__

_logger = logging.getLogger(__name__)

app = typer.Typer(
    name="kb",
    help="A knowledge base on Redis: facts found again by meaning and by words.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unavailable.",
    add_completion=False,
    rich_markup_mode=None,  # its help pages would import rich and triple the start-up time
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"kb {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def kb(
    context: typer.Context,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A knowledge base on Redis: facts found again by meaning and by words."""
    context.obj = Common(redis_url, namespace, as_json)
    if context.invoked_subcommand is None:
        if as_json:
            raise typer.BadParameter("a command is missing")
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_USAGE)


app.command("demo")(demo.demo)
app.command("add")(facts.add)
app.command("get")(facts.get)
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.command("ingest")(ingest.ingest)
app.command("documents")(documents.documents)
app.command("stats")(status.stats)
app.command("health")(status.health)
app.command("check")(check.check)
app.command("reindex")(reindex.reindex)
app.command("delete")(prune.delete)
app.command("prune")(prune.prune)
app.command("duplicates")(duplicates.duplicates)
app.command("namespaces")(namespaces.namespaces)
app.command("backup")(backup.backup)
app.command("jobs")(jobs.jobs)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("eval")(evaluate.evaluate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``kb``; without them those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 unavailable, 130 interrupted.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        _quiet_libraries()
    as_json = "--json" in takewhile(lambda word: word != "--", arguments)
    try:
        outcome = typer.main.get_command(app).main(args=list(arguments), prog_name="kb", standalone_mode=False)
        return outcome if isinstance(outcome, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the user gets one line, never a traceback
        return _report(error, as_json)


def _report(error: Exception, as_json: bool) -> int:
    _logger.debug("command failed", exc_info=error)
    kind, message, code = _describe(error)
    message = " ".join(message.split())
    if as_json:
        described = {"type": kind, "message": message, "retryable": getattr(error, "retryable", False)}
        line = json.dumps({"error": described})
    else:
        line = f"kb: {message}"
    print(line, file=sys.stderr)
    return code


def _describe(error: Exception) -> tuple[str, str, int]:
    kind = type(error).__name__
    if isinstance(error, _UsageError):
        problem = error.format_message().replace("Value error, ", "")
        return "UsageError", f"{problem} (kb --help tells more)", WRONG_USAGE
    if isinstance(error, InvalidInputError):
        return kind, str(error), WRONG_USAGE
    if isinstance(error, UnavailableError):
        return kind, str(error), UNAVAILABLE
    if isinstance(error, KnowledgeBaseError):
        return kind, str(error), FAILED
    return kind, f"unexpected {kind}: {error}", FAILED


def _quiet_libraries() -> None:
    """Keeps log lines and warnings of libraries off the terminal, unless Python was told to show them."""
    logging.getLogger().addHandler(logging.NullHandler())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
