"""What `codestral-lsp stats` prints: how often suggestions were shown and taken, what that has saved, and how long answers took.

Knows the counts and the terminal; knows no daemon. Raises ClickException with one line for whatever cannot be done.
"""

import math
import os
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
from click import ClickException

from lsp.counts import NAMES, SOURCES, Source, Summary, Sums, summaries
from lsp.settings import read_settings
from lsp.statistics_store import Store, StoreError
from lsp.terminal import counted, harmless

DAYS_DRAWN = 14
BAR_WIDTH = 30
HEAD = ("", "shown", "accepted", "in part", "characters saved", "model p50 / p95", "typed through p50 / p95")
# By what a terminal can show: accepted, shown and not accepted.
BLOCKS, LETTERS = ("█", "░"), ("#", "-")


def stats(*, days: int, as_json: bool, path: Path | None = None) -> None:
    """Of the last `days` days, today's included."""
    today = date.today()
    since = today - timedelta(days=days - 1)
    sums = _read(path, since=since)
    if as_json:
        click.echo(msgspec.json.encode(_as_object(sums, since=since, days=days)).decode())
    elif not sums:
        click.echo(_why_empty(days))
    else:
        is_unicode = _can_show("".join(BLOCKS), sys.stdout.encoding)
        click.echo("\n".join(table_lines(sums, days=days) + day_lines(sums, today=today, is_unicode=is_unicode)))


def reset(*, as_json: bool, path: Path | None = None) -> None:
    store = Store(path)
    try:
        store.reset()
    except StoreError as error:
        raise ClickException(str(error)) from None
    finally:
        store.close()
    click.echo(msgspec.json.encode({"reset": True}).decode() if as_json else "all counts are forgotten")


def table_lines(sums: Sums, *, days: int) -> list[str]:
    """A line for each language, those in which most was shown first, and one for all where there are several."""
    by_language = summaries(sums, lambda key: key.language)
    (whole,) = summaries(sums, lambda _: "").values()
    names = sorted(by_language, key=lambda name: (-by_language[name].of("shown"), name))
    rows = [_cells(harmless(name), by_language[name]) for name in names]
    if len(rows) > 1:
        rows.append(_cells("all", whole))
    widths = [max(len(row[i]) for row in (HEAD, *rows)) for i in range(len(HEAD))]
    lines = [f"the last {counted(days, 'day')}, on this machine" if days > 1 else "today, on this machine"]
    for row in (HEAD, *rows):
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    parts = [f"rejected {whole.of('rejected')}"]
    if whole.of("looked_after"):
        parts.append(f"still there after a while {_share(whole.of('still_there') / whole.of('looked_after'))}")
    if whole.typed_share is not None:
        parts.append(f"answered without the model {_share(whole.typed_share)}")
    parts.append(f"{counted(whole.of('tokens_fed'), 'token')} read for it")
    return [*lines, "  " + ", ".join(parts)]


def day_lines(sums: Sums, *, today: date, is_unicode: bool) -> list[str]:
    """A bar for each of the last days: what was accepted, and before what else was shown."""
    by_day = summaries(sums, lambda key: key.day)
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS_DRAWN))]
    shown = [by_day[day.isoformat()].of("shown") if day.isoformat() in by_day else 0 for day in days]
    full, light = BLOCKS if is_unicode else LETTERS
    lines = [f"accepted {full} of what was shown {light}"]
    for day, n_shown in zip(days, shown, strict=True):
        line = f"  {day:%Y-%m-%d}"
        if n_shown:
            n_accepted = min(n_shown, max(0, by_day[day.isoformat()].of("accepted")))
            width = max(1, round(BAR_WIDTH * n_shown / max(shown)))
            width_accepted = _width(n_accepted, of=n_shown, width=width)
            bar = full * width_accepted + light * (width - width_accepted)
            line += f"  {bar}  {n_accepted} of {n_shown}"
        lines.append(line)
    return lines


def _width(n: int, *, of: int, width: int) -> int:
    """A share of a bar's width: nothing only for nothing, and all only for all, where there is room for that."""
    if n in (0, of) or width < 2:
        return width if n == of else 0
    return min(width - 1, max(1, round(width * n / of)))


def _cells(name: str, each: Summary) -> tuple[str, ...]:
    accepted = str(each.of("accepted"))
    if each.acceptance is not None:
        accepted += f" ({_share(each.acceptance)})"
    return (
        name,
        str(each.of("shown")),
        accepted,
        str(each.of("partly")),
        str(each.chars_saved),
        *(_percentiles(each, source) for source in SOURCES),
    )


def _percentiles(each: Summary, source: Source) -> str:
    middle, slow = each.percentile_ms(source, 50), each.percentile_ms(source, 95)
    return "-" if middle is None or slow is None else f"{_number(middle)} / {_number(slow)} ms"


def _number(ms: float) -> str:
    """Two digits that count, since the buckets know no more: 1200, 180, 15, 3.4, 0.21."""
    n_after = max(0, 1 - math.floor(math.log10(ms)))
    return f"{float(f'{ms:.1e}'):.{n_after}f}"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _as_object(sums: Sums, *, since: date, days: int) -> dict[str, Any]:
    by_language, by_day = (summaries(sums, lambda key: key.language), summaries(sums, lambda key: key.day))
    whole = summaries(sums, lambda _: "").get("", Summary({}, {}))
    return {
        "days": days,
        "since": since.isoformat(),
        "all": _summary_object(whole),
        "languages": _objects(by_language),
        "by_day": _objects(by_day),
    }


def _objects(named: Mapping[str, Summary]) -> dict[str, Any]:
    return {name: _summary_object(each) for name, each in named.items()}


def _summary_object(each: Summary) -> dict[str, Any]:
    ms = {
        source: {f"p{percent}": _rounded(each.percentile_ms(source, percent), 3) for percent in (50, 95)}
        for source in SOURCES
    }
    return {
        **{name: each.of(name) for name in NAMES},
        "acceptance": _rounded(each.acceptance, 4),
        "chars_saved": each.chars_saved,
        "answered_without_model": _rounded(each.typed_share, 4),
        "ms": ms,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _why_empty(days: int) -> str:
    settings, _ = read_settings(None, os.environ)
    if not settings.statistics:
        return "nothing is counted: the setting `statistics` is off"
    return f"nothing was counted in the last {counted(days, 'day')}; an editor with codestral-lsp that shows suggestions changes that"


def _can_show(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _read(path: Path | None, *, since: date) -> Sums:
    store = Store(path)
    try:
        return store.read(since=since)
    except StoreError as error:
        hint = "; `codestral-lsp stats --reset` begins anew" if error.is_damaged else ""
        raise ClickException(f"{error}{hint}") from None
    finally:
        store.close()
