"""How things are said to people on a terminal: counts, spans, progress, and why there is no suggestion.

Knows values of the protocol; asks no daemon and reads no file.
"""

import sys

import click

from daemon.protocol import Health, Report

REST_SHOWN = 30  # characters of a line

_NO_SUGGESTION = {
    "blank": "the model ends the line here",
    "present": "all that the model says stands right of the cursor already",
    "next_line": "the model says the line that stands below already",
    "leaves": "what the model says does not belong here",
}


def tell(what: str) -> None:
    """One line on a terminal that is written over; nothing where a program reads."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what}", nl=False, err=True)


def counted(n: int, thing: str) -> str:
    """1 hole, 2 holes."""
    return f"{n} {thing}{'s' * (n != 1)}"


def span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def harmless(text: str) -> str:
    """Text of a file or a model must not steer the terminal."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)


def reading_line(done: int, total: int, *, tokens_per_s: float) -> str:
    """How far a context is, and how long it still takes; a speed of 0 is not known yet."""
    line = f"{done} of {total} tokens"
    if tokens_per_s > 0:
        line += f", {tokens_per_s:.0f} tokens/s, {span((total - done) / tokens_per_s)} left"
    return line


def why_nothing(report: Report, rest_of_line: str) -> str | None:
    """Why there is no suggestion, in words; None when the daemon gives no reason. `rest_of_line`: the text right of the cursor."""
    if report.empty_because == "rest_of_line":
        rest = harmless(rest_of_line.strip().replace("\t", " "))
        shown = rest if len(rest) <= REST_SHOWN else rest[: REST_SHOWN - 3] + "..."
        return (
            f"the line goes on right of the cursor with `{shown}`, and what the model says does not lead up to it; "
            "ask at the end of a line"
        )
    return _NO_SUGGESTION.get(report.empty_because or "")


def health_lines(health: Health, *, current: float = 1.0) -> list[str]:
    """What a daemon says of itself. `current`: share of the context being read that completions are answered with as it is now."""
    lines = [f"daemon   pid {health.pid}, version {health.version}, {health.state}, up {span(health.uptime_s)}"]
    model = health.model
    if model is not None:
        precision = f" in {model.precision}" if model.precision else ""
        lines.append(f"model    {model.id}{precision}, contexts of up to {model.max_context_tokens} tokens")
        if model.calibrated is not None:
            window = f", window {model.window.step}+{model.window.suffix_chars}" if model.window is not None else ""
            of = f"{counted(model.calibrated.n_holes, 'hole')} on {model.calibrated.date}"
            lines.append(f"profile  {model.strategy}{window}, calibrated with {of}")
        elif model.strategy is not None:
            lines.append(f"profile  none, asked as {model.strategy} (codestral-lsp calibrate measures what is best)")
    elif health.asked_model:
        lines.append(f"model    {health.asked_model}{_in(health.asked_precision)}")
    if health.error:
        lines.append(f"error    {health.error}")
    lines.append(f"contexts {health.contexts}{_reading(health, current)}")
    lines.append(f"store    {health.store_bytes / 1e6:.1f} of {health.store_budget_bytes / 1e6:.1f} MB")
    lines.append(f"idle     ends after {span(health.idle_timeout_s)} without a request")
    return lines


def _reading(health: Health, current: float) -> str:
    reading = health.reading
    if reading is None:
        return ", up to date" if health.contexts else ""
    line = reading_line(reading.tokens_done, reading.tokens, tokens_per_s=reading.tokens_per_s)
    return f", reading {line}, {int(100 * current)} % current"


def _in(precision: str) -> str:
    return f" in {precision}" if precision not in ("", "auto") else ""
