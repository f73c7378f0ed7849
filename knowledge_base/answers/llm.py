"""Getting the LLM that the caller gives or the settings name. Slow to import LlamaIndex lives behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knowledge_base.answers.exchange import current_exchange
from knowledge_base.embedding.refusals import is_repeatable, status_of
from knowledge_base.errors import InvalidInputError, LLMUnavailableError
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.settings import LLMSettings

if TYPE_CHECKING:
    import httpx
    from llama_index.core.llms import LLM

NO_MODEL = "names no LLM, and none was given: set it to a model's name, or pass llm= to KnowledgeBase"

ADVICE = {
    400: "refused the request; check that KB_LLM__CONTEXT_WINDOW and KB_LLM__MAX_TOKENS are what the model can do",
    401: "refused the key; check KB_LLM__API_KEY",
    403: "refused the key; check KB_LLM__API_KEY",
    404: "does not know the model or the path; check KB_LLM__MODEL and KB_LLM__BASE_URL",
    413: "finds the prompt too long; lower the token budget",
    429: "limits the requests; retry later, or lower KB_LLM__MAX_CONCURRENT_REQUESTS",
}


class EmptyAnswerError(LLMUnavailableError):
    """The LLM answered, and said nothing; that is no sign that it is away."""


@dataclass(frozen=True, slots=True)
class LoadedLLM:
    """An LLM, and how to close what was opened for it."""

    llm: LLM
    close: Callable[[], None] | None = None


def require_llm(settings: LLMSettings, given: LLM | None) -> None:
    """Refuses when there is no LLM to ask; imports nothing.

    Args:
        settings: Name it, unless one is given.
        given: A LlamaIndex LLM that the caller brings.

    Raises:
        InvalidInputError: Neither is there.
    """
    if given is None and settings.model is None:
        raise InvalidInputError("llm.model (KB_LLM__MODEL)", NO_MODEL)


def load_llm(settings: LLMSettings, timeout: float, given: LLM | None) -> LoadedLLM:
    """Returns the LLM to use.

    Args:
        settings: Name it, unless one is given.
        timeout: Seconds for one request.
        given: A LlamaIndex LLM that the caller brings.

    Raises:
        InvalidInputError: What is given is no LLM, or the settings do not name a usable one.
    """
    if given is not None:
        if not isinstance(given, import_heavy("llama_index.core.llms").LLM):
            raise InvalidInputError("llm", f"must be a LlamaIndex LLM, not {type(given).__name__}")
        return LoadedLLM(given)
    if settings.api_key is None and settings.base_url is None:
        raise InvalidInputError("llm.api_key (KB_LLM__API_KEY)", "the OpenAI endpoint needs a key")
    client = _client(settings, timeout)
    endpoint_llm = import_heavy("knowledge_base.answers.endpoint_llm")
    try:
        llm = endpoint_llm.EndpointLLM(
            settings.context_window,
            model=settings.model,
            api_base=settings.base_url,
            # Endpoints on this machine take any key, but the client refuses to start without one.
            api_key=settings.api_key.get_secret_value() if settings.api_key else "none",
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            max_retries=0,
            timeout=timeout,
            http_client=client,
        )
    except ValueError as error:
        client.close()
        raise InvalidInputError("llm.model (KB_LLM__MODEL)", "cannot be used for chat completions") from error
    return LoadedLLM(llm, client.close)


def is_refusal(error: BaseException) -> bool:
    """Tells whether the endpoint is well, and refuses this request.

    Args:
        error: What the LLM raised.
    """
    return status_of(error) is not None and not is_repeatable(error)


def unavailable(error: BaseException) -> LLMUnavailableError:
    """Returns what callers are told, without a word of what the endpoint or the LLM said.

    Args:
        error: What the LLM raised.
    """
    status = status_of(error)
    if status is None:
        return LLMUnavailableError(
            f"the LLM failed ({type(error).__name__}); check that it is reachable and configured"
        )
    advice = ADVICE.get(status, "failed; retry in a moment" if status >= 500 else "refused the request")
    return LLMUnavailableError(f"the LLM's endpoint answered {status}: it {advice}")


def _client(settings: LLMSettings, timeout: float) -> httpx.Client:
    http = import_heavy("httpx")
    # A new connection for each request is soon made beside the time that an answer takes, and can be cut from outside
    # when nobody waits for that answer any more; of connections that are used again it is not known which it is.
    limits = http.Limits(max_connections=settings.max_concurrent_requests, max_keepalive_connections=0)
    client: httpx.Client = http.Client(limits=limits, timeout=timeout, event_hooks={"request": [_traced]})
    return client


def _traced(request: httpx.Request) -> None:
    exchange = current_exchange()
    if exchange is not None:
        request.extensions["trace"] = exchange.trace
