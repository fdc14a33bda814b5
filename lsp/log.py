"""Where the log goes: stderr, one line for each record, whatever happened.

Knows `logging` and one environment variable.
"""

import logging
import os
import sys
import traceback

VARIABLE = "CODESTRAL_LSP_LOG"
LEVELS = ("debug", "info", "warning", "error")


def log_to_stderr() -> None:
    """The level is CODESTRAL_LSP_LOG, "info" when it is not set.

    With "debug" an exception's whole traceback is shown.
    """
    wanted = os.environ.get(VARIABLE, "info").lower()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s", is_brief=wanted != "debug"))
    # Libraries speak up about errors only: below that, pygls logs whole messages, which hold the user's code.
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.getLogger("pygls").setLevel(logging.ERROR if wanted == "debug" else logging.CRITICAL)
    logging.getLogger("lsp").setLevel(wanted.upper() if wanted in LEVELS else "INFO")
    if wanted not in LEVELS:
        logging.getLogger("lsp").warning(
            "%s: expected one of %s, found %r; info is used", VARIABLE, ", ".join(LEVELS), wanted
        )


class _OneLine(logging.Formatter):
    """A traceback is of no use to a reader of the editor's log; its last line and the place are."""

    def __init__(self, form: str, *, is_brief: bool) -> None:
        super().__init__(form)
        self._is_brief = is_brief

    def format(self, record: logging.LogRecord) -> str:
        if not self._is_brief or not record.exc_info or record.exc_info[1] is None:
            return super().format(record)
        error = record.exc_info[1]
        record.exc_info = record.exc_text = None
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
        return f"{super().format(record)} ({type(error).__name__}: {error}{place})".replace("\n", " ")
