"""Stores three facts, finds one, changes it, and takes all of them away again.

Run it as it is: without configuration it uses the embedded server and the local model.
"""

import asyncio

from knowledge_base import KnowledgeBase, Settings


async def main() -> None:
    """Shows what a fact goes through."""
    async with KnowledgeBase(Settings(namespace="quickstart")) as kb:
        await kb.store_fact("The espresso machine is descaled every Friday.", tags=["kitchen"])
        await kb.store_fact("The reading room closes at nine.", tags=["library"])
        stored = await kb.store_fact("Parcels wait at the front desk.", {"floor": 0}, tags=["post"])
        print(f"stored: {stored['status']}, found by meaning: {stored['indexed']}")

        again = await kb.store_fact("Parcels wait at the front desk.")
        print(f"stored again: {again['status']}")

        found = await kb.search("Where do I pick up my package?", 1)
        hit = found["hits"][0]
        print(f"found: {hit['content']} (floor {hit['metadata']['floor']})")

        new = "Parcels wait in the post room."
        changed = await kb.update_fact(hit["fact_id"], content=new, expected_version=1)
        history = await kb.get_fact_history(changed["id"])
        print(f"versions: {[version['version'] for version in history]}")

        removed = await kb.delete_facts({"tags": ["kitchen", "library", "post"]})
        print(f"removed: {removed['succeeded']}")


if __name__ == "__main__":
    asyncio.run(main())
