"""Traces: W3C trace context through the fleet, and spans to an OpenTelemetry collector.

Optional: without ``AUTORENEW_TRACES_URL`` nothing of OpenTelemetry is imported, no span is made,
and every function here returns at once. A context that an upstream sent is kept with its order all
the same, see :mod:`producers.intake.orders`.

Contexts are passed as texts of the header ``traceparent`` (W3C Trace Context, level 1).
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from schemas import logs
from schemas.errors import ConfigurationError
from schemas.settings import Settings

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
MOST_LINKS = 128
"""Of one span: what OpenTelemetry keeps by default."""

_tracer: Any = None
_provider: Any = None


def valid(traceparent: object) -> str | None:
    """A context as it may be kept and passed on; None: it is none, and the standard has it
    ignored."""
    if isinstance(traceparent, bytes):
        traceparent = traceparent.decode("ascii", "replace")
    if isinstance(traceparent, str) and _FORM.fullmatch(traceparent):
        return traceparent
    return None


def configure(settings: Settings, process: str, *, patience: float = 10.0) -> None:
    """Send spans of this process, if a collector is set. To be called after any fork.

    Args:
        patience: seconds, after which what the collector does not take is dropped; so long
            :func:`close` may last.

    Raises:
        ConfigurationError: the extra ``opentelemetry`` is not installed.
    """
    global _tracer, _provider
    if settings.traces_url is None or _provider is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        raise ConfigurationError(
            "AUTORENEW_TRACES_URL is set, and the extra is not installed:"
            " pip install 'autorenew[opentelemetry]'"
        ) from None
    _provider = TracerProvider(
        resource=Resource.create({"service.name": "autorenew", "service.instance.id": process}),
        sampler=ParentBased(TraceIdRatioBased(settings.traces_share)),
    )
    exporter = OTLPSpanExporter(f"{settings.traces_url.rstrip('/')}/v1/traces", timeout=patience)
    # That a batch could not be sent is said once, not for each of its tries.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    send = exporter.export
    exporter.export = lambda spans: send([_clean(span) for span in spans])  # type: ignore[method-assign]
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = _provider.get_tracer("autorenew")


def close() -> None:
    """Send what is left, and send nothing more."""
    global _tracer, _provider
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


def is_on() -> bool:
    return _tracer is not None


def provider() -> Any:
    """For instrumentations of others; None: nothing is traced."""
    return _provider


@contextmanager
def span(
    name: str,
    *,
    kind: str = "internal",
    parent: str | None = None,
    links: Sequence[str] = (),
    **attributes: Any,
) -> Iterator[str | None]:
    """A span around what is done meanwhile, in this thread or coroutine.

    Args:
        kind: ``internal``, ``server``, ``client``, ``producer`` or ``consumer``.
        parent: None: the span that is current, or a new trace.
        links: contexts of what it is about as well.
        attributes: without None.

    Returns:
        Its context; None: nothing is traced.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry import trace

    with _tracer.start_as_current_span(
        name,
        context=_context(parent),
        kind=trace.SpanKind[kind.upper()],
        links=[trace.Link(context) for context in _contexts(links)],
        attributes=_told(attributes),
    ):
        yield carried()


def begin(
    name: str,
    *,
    kind: str = "server",
    parent: str | None = None,
    links: Sequence[str] = (),
    started: int | None = None,
    **attributes: Any,
) -> tuple[str | None, Callable[[], None]]:
    """A span that is not made current: of one of several things that are done together.

    Args:
        started: in nanoseconds since 1970; None: now.

    Returns:
        Its context, which is ``parent`` if nothing is traced, and what ends it.
    """
    if _tracer is None:
        return parent, _nothing
    from opentelemetry import trace

    begun = _tracer.start_span(
        name,
        context=_context(parent),
        kind=trace.SpanKind[kind.upper()],
        links=[trace.Link(context) for context in _contexts(links)],
        start_time=started,
        attributes=_told(attributes),
    )
    return _text(begun.get_span_context()), begun.end


def _nothing() -> None:
    pass


def record(
    name: str,
    started: int,
    ended: int,
    *,
    parent: str,
    links: Sequence[str] = (),
    failed: str | None = None,
    **attributes: Any,
) -> None:
    """A span of what is over.

    Args:
        started, ended: in nanoseconds since 1970.
        failed: why it came to nothing.
    """
    if _tracer is None:
        return
    from opentelemetry import trace

    made = _tracer.start_span(
        name,
        context=_context(parent),
        kind=trace.SpanKind.CONSUMER,
        links=[trace.Link(context) for context in _contexts(links)],
        start_time=started,
        attributes=_told(attributes),
    )
    if failed is not None:
        made.set_status(trace.Status(trace.StatusCode.ERROR, failed))
    made.end(ended)


def carried() -> str | None:
    """The context of the current span, to be passed on."""
    if _tracer is None:
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return _text(context)


def _text(context: Any) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def of_aiohttp() -> list[Any]:
    """What a client session of aiohttp is given, so that its requests are spans and carry their
    context on."""
    if _provider is None:
        return []
    from opentelemetry.instrumentation.aiohttp_client import create_trace_config

    return [create_trace_config(tracer_provider=_provider, url_filter=_without_query)]


def _without_query(url: Any) -> str:
    return str(url.with_query(None).with_user(None))


_EMAIL = re.compile(r"[^\s<>()\"',;:@*]+@[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.IGNORECASE)


def _hidden(text: str) -> str:
    """Without secrets, as in the log, and without e-mail addresses."""
    return _EMAIL.sub("***", logs.redacted(text))


def _clean(span: Any) -> Any:
    """A span as it may leave the house: whatever made it, such as an instrumentation that tells of
    an exception in the words of a far side."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Status

    def clean(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            name: _hidden(value) if isinstance(value, str) else value
            for name, value in (attributes or {}).items()
        }

    attributes, said = clean(span.attributes), span.status.description
    if not span.events and attributes == span.attributes and said is None:
        return span
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=[Event(e.name, clean(e.attributes), e.timestamp) for e in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, _hidden(said)) if said else span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _told(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"autorenew.{name}": value for name, value in attributes.items() if value is not None}


def _contexts(traceparents: Sequence[str]) -> Iterator[Any]:
    from opentelemetry import trace

    for traceparent in traceparents[:MOST_LINKS]:
        if valid(traceparent):
            _, trace_id, span_id, flags = traceparent.split("-")
            yield trace.SpanContext(
                int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16))
            )


def _context(parent: str | None) -> Any:
    if parent is None:
        return None
    from opentelemetry import trace

    for context in _contexts([parent]):
        return trace.set_span_in_context(trace.NonRecordingSpan(context))
    return None
