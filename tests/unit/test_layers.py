"""The shape of the package, read from its source: who may import whom, and who may talk to Redis."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "knowledge_base"

# Highest first; a module imports from its own layer or from below it.
LAYERS = [
    {"interfaces"},
    {"__init__"},
    {"knowledge_base"},
    {"calls"},
    {"services"},
    {"collaborators"},
    {"admin"},
    {"documents"},
    {"statistics", "readiness"},
    {"answers"},
    {"retrieval"},
    {"facts"},
    {"index"},
    {"embedding"},
    {"telemetry"},
    {"connection"},
    {"heavy_imports", "keyspace", "clock", "settings", "errors", "types", "_version"},
]
RANK = {name: len(LAYERS) - depth for depth, names in enumerate(LAYERS) for name in names}

CLIENT_MAKERS = {
    "Redis",
    "StrictRedis",
    "RedisCluster",
    "Sentinel",
    "from_url",
    "Connection",
    "SSLConnection",
    "UnixDomainSocketConnection",
    "ConnectionPool",
    "BlockingConnectionPool",
    "SentinelConnectionPool",
}
RAW_ACCESS = {"connection_pool", "get_connection", "parse_response", "read_response", "send_command", "pack_command"}
STORES = {"RedisVectorStore", "SearchIndex", "AsyncSearchIndex"}


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: Path
    tree: ast.Module

    @property
    def name(self) -> str:
        return ".".join(("knowledge_base", *self.path.relative_to(PACKAGE).with_suffix("").parts))

    @property
    def layer(self) -> str:
        return self.path.relative_to(PACKAGE).with_suffix("").parts[0]

    def runtime_nodes(self) -> Iterator[ast.AST]:
        """Every node but those that only a type checker looks at."""
        waiting: list[ast.AST] = [self.tree]
        while waiting:
            node = waiting.pop()
            yield node
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                waiting.extend(node.orelse)
            else:
                annotations = {id(getattr(node, name, None)) for name in ("annotation", "returns")}
                waiting.extend(child for child in ast.iter_child_nodes(node) if id(child) not in annotations)


def parsed(source: str, name: str = "retrieval/example.py") -> Module:
    return Module(PACKAGE / name, ast.parse(source))


MODULES = [Module(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def imported_layers(module: Module) -> set[str]:
    """The parts of the package that a module imports, also lazily and for the type checker."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}:{node.lineno} imports relatively"
            paths = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "knowledge_base" else []
            paths += [node.module or ""] if node.module != "knowledge_base" else []
        else:
            continue
        for path in paths:
            head, _, rest = path.partition(".")
            if head == "knowledge_base":
                part = rest.split(".")[0]
                found.add(part if part in RANK else "__init__")
    return found


def upward_imports(module: Module) -> set[str]:
    if module.layer == "__init__":
        return set()
    return {layer for layer in imported_layers(module) if RANK[layer] > RANK[module.layer]}


def redis_names(module: Module) -> set[str]:
    """The names by which a module knows what it imports of redis at run time."""
    names: set[str] = set()
    for node in module.runtime_nodes():
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names if is_redis(alias.name)}
        elif isinstance(node, ast.ImportFrom) and is_redis(node.module or ""):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def is_redis(module: str) -> bool:
    return module.split(".")[0] in {"redis", "redisvl", "fakeredis", "valkey"}


def client_makers(module: Module) -> list[str]:
    """Every place where a module could make itself a client, or reach around the guarded one."""
    found: list[str] = []
    known = redis_names(module)
    for node in module.runtime_nodes():
        if isinstance(node, ast.ImportFrom) and is_redis(node.module or ""):
            found += [f"imports {alias.name}" for alias in node.names if alias.name in CLIENT_MAKERS]
        elif isinstance(node, ast.Attribute) and node.attr in CLIENT_MAKERS:
            root = ast.unparse(node).split(".")[0]
            found += [f"{node.lineno}: {ast.unparse(node)}"] if root in known or node.attr == "from_url" else []
        elif isinstance(node, ast.Attribute) and node.attr in RAW_ACCESS:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def stores_that_connect_themselves(module: Module) -> list[str]:
    """Every vector store or search index that is given a URL, or no client."""
    found = []
    for node in module.runtime_nodes():
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in STORES:
            given = {keyword.arg for keyword in node.keywords}
            if "redis_url" in given or not given & {"redis_client", "redis_client_async", None}:
                found.append(f"{node.lineno}: {ast.unparse(node.func)}")
    return found


def default_executor_uses(module: Module) -> list[str]:
    """Every hand-over of work to the loop's own threads, which anybody can starve."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncio.to_thread":
            found.append(f"{node.lineno}: asyncio.to_thread")
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            found += [f"{node.lineno}: to_thread" for alias in node.names if alias.name == "to_thread"]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.args[0] if node.args else None
            if node.func.attr == "run_in_executor" and isinstance(first, ast.Constant) and first.value is None:
                found.append(f"{node.lineno}: run_in_executor(None, …)")
    return found


def test_the_package_is_there() -> None:
    assert {"knowledge_base", "retrieval", "facts", "index", "embedding", "connection"} <= {m.layer for m in MODULES}


@each_module
def test_module_belongs_to_a_layer(module: Module) -> None:
    assert module.layer in RANK


@each_module
def test_imports_point_downwards(module: Module) -> None:
    assert upward_imports(module) == set()


@each_module
def test_only_the_connection_layer_makes_clients(module: Module) -> None:
    assert module.layer == "connection" or client_makers(module) == []


@each_module
def test_vector_stores_are_given_their_client(module: Module) -> None:
    assert stores_that_connect_themselves(module) == []


@each_module
def test_no_work_goes_to_the_loop_s_own_threads(module: Module) -> None:
    assert default_executor_uses(module) == []


@each_module
def test_file_can_be_read_in_one_sitting(module: Module) -> None:
    assert len(module.path.read_text().splitlines()) <= 400


@pytest.mark.parametrize(
    "source",
    [
        "from knowledge_base.interfaces.cli import main",
        "import knowledge_base.knowledge_base",
        "from knowledge_base import KnowledgeBase",
        "def later():\n    from knowledge_base.knowledge_base import KnowledgeBase",
        "if TYPE_CHECKING:\n    from knowledge_base.interfaces.cli import main",
    ],
)
def test_upward_import_is_found(source: str) -> None:
    assert upward_imports(parsed(source))


@pytest.mark.parametrize("source", ["from knowledge_base.facts.x import y", "from knowledge_base.errors import z"])
def test_downward_import_is_let_through(source: str) -> None:
    assert upward_imports(parsed(source)) == set()


@pytest.mark.parametrize(
    "source",
    [
        "from redis.asyncio import Redis",
        "import redis\nredis.Redis()",
        "import redis.asyncio as aio\naio.from_url('redis://x')",
        "import redis\nclient = redis.asyncio.Redis.from_url(url)",
        "from redis import ConnectionPool as P",
        "client.connection_pool.get_connection('_')",
    ],
)
def test_client_made_outside_is_found(source: str) -> None:
    assert client_makers(parsed(source))


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    from redis.asyncio import Redis",
        "from redis.exceptions import ResponseError",
        "import redis\ndef run(client: redis.Redis) -> redis.Redis: ...",
    ],
)
def test_annotations_and_exceptions_of_redis_are_let_through(source: str) -> None:
    assert client_makers(parsed(source)) == []


@pytest.mark.parametrize("source", ["RedisVectorStore(schema=s, redis_url=u)", "SearchIndex(schema)"])
def test_store_that_connects_itself_is_found(source: str) -> None:
    assert stores_that_connect_themselves(parsed(source))


@pytest.mark.parametrize(
    "source",
    ["await asyncio.to_thread(f)", "from asyncio import to_thread", "loop.run_in_executor(None, f)"],
)
def test_use_of_the_loop_s_own_threads_is_found(source: str) -> None:
    assert default_executor_uses(parsed(source if "await" not in source else f"async def g():\n    {source}"))
