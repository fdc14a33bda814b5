"""Where a completion ends, and what of it is worth showing.

One line: the first with something in it, without what stands right of the cursor already (daemon/overlap.py). Several lines: as far as they belong to the
cursor's block (daemon/block.py). A model that was trained to fill in says itself where the gap ends. Of one that was not, a line is also cut where it leaves
the gap (daemon/overrun.py). Knows: text before and after the cursor, text generated. Does not know: tokens, models.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from daemon.block import Block
from daemon.overlap import CLOSERS, Fit, beginning, fitted, reached
from daemon.overrun import (
    HEADER,
    TAB_SIZE,
    Overrun,
    closable_of,
    first_line,
    foreign_of,
    indentation,
    overrun_of,
    repeats,
)
from daemon.protocol import CompletionRequest

DOUBLED_BLANK = re.compile(r" [^\s#/]")  # not what stands before a comment
LEAD = re.compile(r"(?:[ \t]*\n)+")
BLOCK_BEGINS = ("", ":", "{", "(", "[")  # how a line ends below which a blank one makes no sense
LEAST_REPEATED, MOST_REPEATED = 4, 80  # characters of what is found three times in a row
REPEATED_ROOM = 240  # characters at the end of a text, in which they are looked for


class Shown(NamedTuple):
    """The text to insert, or why there is none."""

    text: str
    empty_because: str | None = None  # a word of daemon.protocol.Report.empty_because; None when there is a text
    replaces: int = 0  # characters right of the cursor that the text stands in place of
    upto: int = 0  # characters of the generated text up to the end of what is shown of it


class Trim:
    """One request's rules. `open_ended`: the model does not know where the gap ends; `fenced`: its answer stands in a block of code."""

    def __init__(self, request: CompletionRequest, *, open_ended: bool = False, fenced: bool = False) -> None:
        self.request = request
        self.is_multi = request.max_lines > 1 and CLOSERS.fullmatch(request.rest_of_line) is not None
        self._stop = stop_strings(request) if self.is_multi else line_stop(request)
        self._overrun: Callable[[str], Overrun | None] | None = None
        if self.is_multi:
            self._overrun = Block(request, fenced=fenced).look
        elif open_ended:
            self._overrun = overrun_of(request, fenced=fenced)
        elif request.may_replace:
            self._overrun = foreign_of(request)
        rest = beginning(request.rest_of_line)
        self._rest = rest if len(rest) > 2 and not CLOSERS.fullmatch(rest) else None

    def stop(self, text: bytes) -> str | None:
        """Why decoding ends after `text`, or None."""
        if self._overrun is not None:
            whole = text.decode("utf-8", "ignore")
            if (over := self._overrun(whole)) is not None:
                return over.reason
            if self._rest is not None and reached(whole, self._rest, is_whole=False) is not None:
                return "suffix"
        return self._stop(text)

    def shown(self, text: bytes) -> str:
        """The text to insert; "" when nothing is worth it."""
        return self.outcome(text).text

    def outcome(self, text: bytes, *, is_cut: bool = False) -> Shown:
        """The same with the reason why there is none. `is_cut`: not the model ended it, so that the last of several lines may not be whole."""
        if self._overrun is None:
            return outcome_of(text, self.request)
        whole = text.decode("utf-8", "ignore")
        over = self._overrun(whole)
        left = whole[: over.at if over is not None else None]
        is_cut = is_cut and over is None
        made = (
            several_lines(left, self.request, is_cut=is_cut)
            if self.is_multi
            else outcome_of(left.encode(), self.request)
        )
        if over is not None and made.empty_because == "blank":
            return Shown("", "next_line" if over.reason == "suffix" else "leaves")
        return made


def stop_strings(request: CompletionRequest) -> Callable[[bytes], str | None]:
    """Stops at a stop string or where the text repeats itself."""
    stops = [stop.encode() for stop in request.stop if stop]

    def check(text: bytes) -> str | None:
        if any(stop in text for stop in stops):
            return "stop"
        return "repetition" if repetition(text.decode("utf-8", "ignore")) else None

    return check


def line_stop(request: CompletionRequest) -> Callable[[bytes], str | None]:
    """Stops at the end of the first line that has something in it, at a stop string, or where the text repeats itself.

    At the end of a line the model may begin with a line break and then write one line; in front of other text it may not.
    """
    stopped = stop_strings(request)
    one_line = bool(request.rest_of_line.strip())

    def check(text: bytes) -> str | None:
        if (reason := stopped(text)) is not None:
            return reason
        end = text.rfind(b"\n")
        if end >= 0 and (one_line or text[:end].strip()):
            return "line"
        return None

    return check


def trimmed(text: bytes, request: CompletionRequest) -> str:
    """The text to insert; "" when nothing is left."""
    return outcome_of(text, request).text


def outcome_of(text: bytes, request: CompletionRequest) -> Shown:
    """The text to insert: whole characters, up to the line's end, without what already stands to the right of the cursor."""
    out = before_stops(text.decode("utf-8", "ignore"), request)
    lead = len(out) - len(out.lstrip())
    rest = request.rest_of_line.rstrip()
    end = out.find("\n", lead if not rest.strip() else 0)
    out = (out if end < 0 else out[:end]).rstrip()
    if not out:
        return Shown("", "blank" if CLOSERS.fullmatch(rest) else "rest_of_line")
    return placed(out, request)


def several_lines(out: str, request: CompletionRequest, *, is_cut: bool) -> Shown:
    """What of several lines, which belong to the cursor's block, is inserted: whole lines, without those that stand below already."""
    out = before_stops(out, request)
    lead = len(out) - len(out.lstrip())
    if is_cut and (end := out.rfind("\n")) > lead:
        out = out[:end]
    out = without_lines_below(out.rstrip(), request)
    if not out.strip():
        return Shown("", "blank")
    return placed(out, request)


def placed(out: str, request: CompletionRequest) -> Shown:
    """`out` as it is inserted between what stands left and right of the cursor."""
    behind = behind_indent(out, request)
    if behind is None:
        return Shown("", "leaves")
    typed = request.prompt[request.prompt.rfind("\n") + 1 :]
    if typed.strip() and typed[-1] in " \t" and DOUBLED_BLANK.match(behind):
        behind = behind[1:]
    rest = request.rest_of_line.rstrip()
    opened = closable_of(request)() if rest and CLOSERS.fullmatch(rest) else ""
    fit = fitted(behind, rest, may_replace=request.may_replace, opened=opened)
    if fit is None:
        return Shown("", "rest_of_line")
    if not fit.text.strip():
        return Shown("", "present")
    if repeats_next_line(fit.text, request):
        return Shown("", "next_line")
    upto = len(out) - (len(behind) - len(fit.text))
    return Shown(with_closer_below(fit, request), replaces=fit.replaces, upto=upto)


def with_closer_below(fit: Fit, request: CompletionRequest) -> str:
    """Several lines in front of a closing brace end with a line break, so that it comes to stand on a line of its own, as deep as its block begins."""
    rest = request.rest_of_line[fit.replaces :].lstrip()
    ends_line = not fit.text.rpartition("\n")[2].strip()
    if request.max_lines == 1 or not rest.startswith("}") or ends_line or not ("\n" in fit.text or request.indent):
        return fit.text
    opener = next((line for line in reversed(request.prompt.split("\n")) if line.strip()), "")
    return f"{fit.text}\n{opener[: len(opener) - len(opener.lstrip())]}"


def before_stops(out: str, request: CompletionRequest) -> str:
    """Once what was said three times in a row at its end, and nothing from a stop string or another file's header on."""
    for end in range(3 * LEAST_REPEATED, len(out) + 1):  # the first, however much the model's last token said beyond it
        if repeated := repetition(out[:end]):
            out = out[: end - 2 * len(repeated)]
            break
    for stop in [*request.stop, HEADER]:
        if stop and stop in out:
            out = out[: out.index(stop)]
    return out


def behind_indent(out: str, request: CompletionRequest) -> str | None:
    """What goes on behind white space that was typed on a line of its own, `request.indent`; None when it is indented less.

    A blank line before it stays where one makes sense: not after another, and not where a block begins.
    """
    if not request.indent:
        return out
    lead = LEAD.match(out)
    if lead is not None:
        if indentation(out[lead.end() :]) < indentation(request.indent):
            return None
        above = request.prompt.split("\n")[-2:-1]
        if above and above[0].rstrip()[-1:] not in BLOCK_BEGINS:
            return out
        out = out[lead.end() :]
    if out.startswith(request.indent):
        return out[len(request.indent) :]
    more = indentation(out) - indentation(request.indent)
    if more < 0:
        return None
    tabs, spaces = divmod(more, TAB_SIZE) if "\t" in request.indent else (0, more)
    return "\t" * tabs + " " * spaces + out.lstrip(" \t")


def without_lines_below(out: str, request: CompletionRequest) -> str:
    """Without last lines that stand below already, such as the end of a block: those that are the first lines below, indented as they are."""
    lines = out.split("\n")
    below = [line.rstrip() for line in request.suffix.split("\n") if line.strip()]
    said = [line.rstrip() for line in lines]
    for n in range(min(len(below), len(lines) - 1), 0, -1):
        if said[-n:] == below[:n] and any(line.strip() for line in lines[:-n]):
            return "\n".join(lines[:-n]).rstrip()
    return out


def repetition(text: str) -> str:
    """What stands three times in a row at the end of `text`, as a small model writes when it is lost; "" when nothing does.

    A run of one character is no repetition: indentation, or a line drawn in a comment. A line break behind it all does not matter.
    """
    most, found = 0, ""
    for end in range(len(text) - text.endswith("\n"), len(text) + 1):
        n_behind = len(text) - end
        length = longest_repeated(text[max(0, len(text) - REPEATED_ROOM) : end])
        if length and 3 * length + n_behind > most:
            most, found = 3 * length + n_behind, text[end - length : end]
    return found if len(set(found)) > 1 else ""


def longest_repeated(text: str) -> int:
    """The length, LEAST_REPEATED to MOST_REPEATED, of the longest text that stands three times in a row at the end of `text`; 0: there is none."""
    n, best = len(text), 0
    if n < 3 * LEAST_REPEATED:
        return 0
    tail = text[-LEAST_REPEATED:]
    at = n - LEAST_REPEATED  # where the same characters stand that end the text
    while (at := text.rfind(tail, 0, at + LEAST_REPEATED - 1)) >= 0:
        length = n - LEAST_REPEATED - at
        if 3 * length > n or length > MOST_REPEATED:
            break
        if length >= LEAST_REPEATED and text[n - 3 * length : n - length] == 2 * text[n - length :]:
            best = length
    return best


def repeats_next_line(out: str, request: CompletionRequest) -> bool:
    """Whether the completed line is the one that stands below already."""
    typed = request.prompt[request.prompt.rfind("\n") + 1 :]
    line = typed + request.indent + out if "\n" not in out else out.lstrip("\n")
    is_new = "\n" in out or not (typed + request.indent).strip()
    following = first_line(request.suffix)
    return (is_new or len(line.strip()) > 2) and repeats(line, following, is_whole=True)
