"""Fetches context for a chat prompt, with citations, and never lets the chat fail.

Run it as it is. To see it degrade, name an embedding endpoint where nothing listens::

    export KB_EMBEDDING__PROVIDER=openai KB_EMBEDDING__BASE_URL=http://127.0.0.1:9/v1
    export KB_EMBEDDING__DIMENSION=384 KB_NAMESPACE=chat-degraded

``kb.build_context(…, on_error="empty")`` does all of this in one call; chat_workflow.py shows it in a whole chat.
"""

import asyncio
from dataclasses import dataclass, field

from knowledge_base import KnowledgeBase, UnavailableError

HANDBOOK = [
    {
        "content": "Refunds are paid within fourteen days, in the way that you paid.",
        "source": "Handbook, Refunds",
        "tags": ["handbook"],
    },
    {
        "content": "Gift cards are not refunded, but can be passed on to somebody else.",
        "source": "Handbook, Gift cards",
        "tags": ["handbook"],
    },
    {
        "content": "The shop is closed on Sundays and on public holidays.",
        "source": "Handbook, Opening hours",
        "tags": ["handbook"],
    },
]


@dataclass
class Context:
    """What goes into the prompt, where it is from, and what the answer lacks."""

    text: str = ""
    citations: list[str] = field(default_factory=list)
    note: str = ""


async def context_for(kb: KnowledgeBase, question: str, *, seconds: float = 5.0) -> Context:
    """Returns the best passages for a question within a time that the chat can wait.

    Args:
        kb: The knowledge base.
        question: What the user asks.
        seconds: How long the chat can wait.
    """
    try:
        found = await kb.search(question, 2, filters={"tags": "handbook"}, timeout=seconds)
    except UnavailableError as error:
        return Context(note=f"answering without the handbook: {error}")
    context = Context()
    for number, hit in enumerate(found["hits"], start=1):
        context.text += f"[{number}] {hit['content']}\n"
        context.citations.append(f"[{number}] {hit['source']} ({hit['score']:.2f})")
    if found["degraded"]:
        context.note = f"found without: {', '.join(found['degraded'])}"
    return context


async def main() -> None:
    """Builds one prompt."""
    kb = KnowledgeBase()
    try:
        try:
            await kb.store_facts(HANDBOOK)
        except UnavailableError as error:
            print(f"Not stored: {error}")
        question = "How many days does it take until a refund is paid?"
        context = await context_for(kb, question)
        print(f"Answer from these passages and cite them.\n\n{context.text}\n{question}\n")
        print("Sources:", *context.citations, sep="\n")
        if context.note:
            print(f"Note: {context.note}")
    finally:
        await kb.close()


if __name__ == "__main__":
    asyncio.run(main())
