"""``kb documents``: which there are; one shown or deleted."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from knowledge_base.errors import DocumentNotFoundError
from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, Principals, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.settings import Settings
    from knowledge_base.types import Document


class Action(StrEnum):
    """The choices of the first argument."""

    LIST = "list"
    SHOW = "show"
    DELETE = "delete"


def documents(
    context: typer.Context,
    action: Annotated[
        Action, typer.Argument(metavar="[list|show|delete]", help="What to do; list them when not given.")
    ] = Action.LIST,
    document_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The document to show or delete.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Documents at most.")] = 100,
    offset: Annotated[int, typer.Option("--offset", metavar="N", help="Documents to skip.")] = 0,
    principals: Principals = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List documents, newest first, show one with its text, or delete one."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    settings = common.settings()
    if (action is Action.LIST) != (document_id is None):
        raise typer.BadParameter(f"kb documents {action.value} takes {'no' if action is Action.LIST else 'an'} id")
    if document_id is None:
        found = run(settings, lambda base: base.list_documents(principals=principals, limit=limit, offset=offset))
        out.result(found)
        for document in found:
            _say(out, document)
        if not found:
            out.say("No documents.")
    elif action is Action.SHOW:
        shown = run(settings, lambda base: base.get_document(document_id, principals=principals))
        out.result(shown)
        _say(out, shown)
        out.say()
        out.say(shown["text"])
    else:
        _delete(out, settings, document_id, principals)


def _delete(out: Output, settings: Settings, document_id: str, principals: list[str] | None) -> None:
    if not run(settings, lambda base: base.delete_document(document_id, principals=principals)):
        raise DocumentNotFoundError(document_id, settings.namespace)
    out.result({"deleted": document_id})
    out.say("Deleted ", (document_id, "bold"))


def _say(out: Output, document: Document) -> None:
    about = [document["title"] or "", f"version {document['version']}", f"{document['passages']} passages"]
    if document["source"]:
        about.append(f"from {document['source']}")
    if not document["indexed"]:
        about.append("waits for vectors")
    out.say((document["id"], "bold"), (f"  {'  '.join(part for part in about if part)}", "dim"))
