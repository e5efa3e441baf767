"""Log lines go to standard error: text on a terminal, JSON elsewhere. Prompts are not logged."""

import logging
import sys

import structlog


def log_to_stderr(level: str) -> None:
    """Show lines of at least `level` ("debug", "info", "warning", "error")."""
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if terminal:
        # plain: a traceback with local variables would show prompts
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,  # the request id
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # as it is at the time
    )
