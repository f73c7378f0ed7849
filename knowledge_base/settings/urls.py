"""What the URL of a server may say, and what of it is shown."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit, urlunsplit

URL_OPTIONS = ("db", "username", "password")


def check_redis_url(value: str | None) -> str | None:
    """Returns the URL, None where it is blank.

    Args:
        value: What was given.

    Raises:
        ValueError: It is no URL of a server; says why.
    """
    if value is None or not value.strip():
        return None
    parts = urlsplit(value)
    options = [name for name, _ in parse_qsl(parts.query) if not name.startswith("ssl_") and name not in URL_OPTIONS]
    if options:
        raise ValueError(f"has the option {options[0][:64]!r}; take {', '.join(URL_OPTIONS)} or ssl_…")
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("names no socket; write unix:///path/to/redis.sock")
        return value
    try:
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("names no valid host and port")
    return value


def redacted_url(url: str) -> str:
    """Returns the URL of a server without its user, password and query.

    Args:
        url: Any URL that ``Settings.redis_url`` takes.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"***@{host}" if "@" in parts.netloc else host, parts.path, "", ""))


def names_database_zero(url: str) -> bool:
    """Tells whether a URL names database 0, the only one that the query engine indexes.

    Args:
        url: Any URL that ``Settings.redis_url`` takes.
    """
    parts = urlsplit(url)
    database = dict(parse_qsl(parts.query)).get("db", "0")
    if parts.scheme != "unix":
        database = parts.path.strip("/") or database
    return database == "0"
