"""Where a completion ends, and what of it is worth showing.

Knows: text before and after the cursor, text generated. Does not know: tokens, models.
"""

import re
from collections.abc import Callable

from daemon.protocol import CompletionRequest

HEADER = "\n+++++ "  # the model begins another file
CLOSERS = re.compile(r"[\s)\]}>\"'`,;:]*")
REST_CHARS = 8  # of the text right of the cursor that a suggestion has to reach
THRICE = re.compile(r"(.{4,80}?)\1\1$", re.DOTALL)


def line_stop(request: CompletionRequest) -> Callable[[bytes], str | None]:
    """Stops at the end of the first line that has something in it, at a stop string, or where the text repeats itself.

    At the end of a line the model may begin with a line break and then write one line; in front of other text it may not.
    """
    stops = [stop.encode() for stop in request.stop if stop]
    one_line = bool(request.rest_of_line.strip())

    def check(text: bytes) -> str | None:
        if any(stop in text for stop in stops):
            return "stop"
        if repetition(text.decode("utf-8", "ignore")):
            return "repetition"
        end = text.rfind(b"\n")
        if end >= 0 and (one_line or text[:end].strip()):
            return "line"
        return None

    return check


def trimmed(text: bytes, request: CompletionRequest) -> str:
    """The text to insert: whole characters, up to the line's end, without what already stands to the right of the cursor; "" when nothing is left."""
    out = text.decode("utf-8", "ignore")
    out = out[: len(out) - 2 * len(repetition(out))]
    for stop in [*request.stop, HEADER]:
        if stop and stop in out:
            out = out[: out.index(stop)]
    lead = len(out) - len(out.lstrip())
    end = out.find("\n", lead if not request.rest_of_line.strip() else 0)
    out = (out if end < 0 else out[:end]).rstrip()
    out = fitted(out, request.rest_of_line.rstrip())
    return "" if not out.strip() or repeats_next_line(out, request) else out


def repetition(text: str) -> str:
    """What stands three times in a row at the end of `text`, as a small model writes when it is lost; "" when nothing does.

    A run of one character is no repetition: indentation, or a line drawn in a comment.
    """
    found = THRICE.search(text, max(0, len(text) - 240))
    return found[1] if found and len(set(found[1])) > 1 else ""


def fitted(out: str, rest: str) -> str:
    """What of `out` fits in front of `rest`, the text already right of the cursor.

    In front of closers and punctuation, such as an editor's automatic bracket, all of it but what stands there already. In front of
    anything else only what leads up to it: the model does not see `rest`, and what does not reach it would break the line.
    """
    # With the space before it if that fits, so that it does not stand there twice.
    shorter = next((cut for text in (rest, rest.lstrip()) if (cut := without_overlap(out, text)) != out), out)
    if shorter != out or CLOSERS.fullmatch(rest):
        return shorter
    at = out.find(rest.lstrip()[:REST_CHARS])
    return out[:at] if at >= 0 else ""


def without_overlap(out: str, rest: str) -> str:
    """Drops the longest end of `out` that is the start of the text already right of the cursor, such as a closing bracket."""
    for length in range(min(len(out), len(rest)), 0, -1):
        if out.endswith(rest[:length]):
            return out[:-length]
    return out


def repeats_next_line(out: str, request: CompletionRequest) -> bool:
    """Whether the completed line is the one that stands below already."""
    following = next((line.strip() for line in request.suffix.split("\n") if line.strip()), "")
    typed = request.prompt[request.prompt.rfind("\n") + 1 :]
    completed = (typed + out).strip() if "\n" not in out else out.strip()
    return len(completed) > 2 and completed == following
