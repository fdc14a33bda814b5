"""What the user may set, read once: defaults, then the environment, then the editor's initializationOptions.

Knows no LSP types.

A key that is unknown or has a wrong value is one line in `problems` and the default; it is never dropped in silence and
never fatal.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from pathspec import GitIgnoreSpec

BUNDLED = "bundled"
AUTO = "auto"
SNAPSHOTS = (AUTO, "fp32", "fp16", "int8")
PLACES = ("comment", "string")
MEGABYTE = 1 << 20
PRECISIONS = (AUTO, "fp32", "bf16", "int8", "int4")
MODEL_EXPECTED = f'"{BUNDLED}", an absolute path or a name on the hub such as ORG/NAME'
ENVIRONMENT_PREFIX = "CODESTRAL_LSP_"

_OF_COPILOT = (
    "editorInfo",
    "editorPluginInfo",
)  # what clients of the Copilot language server send, which expect to hear of the status

_HUB_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_HUB_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")


@dataclass(frozen=True, slots=True)
class Settings:
    model: str = BUNDLED  # or an absolute path, or a name on the hub
    precision: str = AUTO  # of the weights; auto: what this machine's memory allows
    context_max_tokens: int = 262_144  # of the repository; the model's own limit holds as well
    idle_minutes: float = 30.0  # without a request, after which the daemon ends
    memory_mb: int = 0  # for states that are kept in memory; 0: a share of this machine's
    disk_mb: int = 16_384  # for states that are kept on disk, and never over a tenth of what is free; 0: none
    snapshots: str = AUTO  # numbers of a state on disk; auto: fp32 where a state is small, else fp16
    max_tokens: int = 64  # of one suggestion
    max_lines: int = 6  # of one suggestion, where the place asks for several
    budget_ms: int = 1500  # for feeding and decoding one suggestion
    alternatives: int = 3  # different suggestions when one is asked for by name
    automatic: bool = True  # False: only when asked for by name
    delay_ms: int = 50  # at least, from the last edit until a new suggestion of one line is shown
    delay_lines_ms: int = 150  # the same for one of several lines
    min_confidence: float = 0.2  # below which nothing is shown, unless it is asked for by name (docs/log.md)
    disable_in: tuple[str, ...] = ()  # of PLACES
    languages: Mapping[str, bool] = field(
        default_factory=dict
    )  # by the editor's language id; "*" stands for all others
    exclude: tuple[str, ...] = ()  # patterns as in .gitignore, of files in which nothing is suggested
    enable: bool = True  # False: no daemon is started and every answer is empty
    statistics: bool = True  # what was shown and taken is counted, on this machine and nowhere else
    status: bool = False  # True: the editor is told what a status bar may show; some editors are told anyway
    reports: bool = False  # True: the editor is told what each suggestion has cost, as benchmarks want it

    @property
    def daemon_options(self) -> tuple[str, ...]:
        """What the daemon is started with beside its model and its socket. One that runs already keeps its own."""
        memory = ("--store-bytes", str(self.memory_mb * MEGABYTE)) if self.memory_mb else ()
        disk = ("--disk-bytes", str(self.disk_mb * MEGABYTE))
        return ("--idle-minutes", f"{self.idle_minutes:g}", *memory, *disk, "--snapshots", self.snapshots)


DEFAULTS = Settings()


class WrongValue(Exception):
    """A setting's value cannot be used. The message says what was expected."""


def read_settings(options: object, environment: Mapping[str, str]) -> tuple[Settings, tuple[str, ...]]:
    """The settings and one line for each key that was not understood."""
    settings, problems = DEFAULTS, []
    for key in _PARSERS:
        name = ENVIRONMENT_PREFIX + key.upper()
        if name in environment:
            text = environment[name]
            value = text if key in _LISTS else _from_text(text)
            settings = _set(settings, key, value, name=name, problems=problems)
    if options is None:
        return settings, tuple(problems)
    if not isinstance(options, Mapping):
        return settings, (
            *problems,
            f"initializationOptions: expected an object, found {_shown(options)}; defaults are used",
        )
    for key, value in options.items():
        if key in _OF_COPILOT:
            settings = replace(settings, status=True)
        elif key in _PARSERS:
            settings = _set(settings, key, value, name=key, problems=problems)
        else:
            problems.append(f"{key}: unknown setting; known are {', '.join(_PARSERS)}")
    return settings, tuple(problems)


def parse_model(value: object) -> str:
    """`bundled`, a name on the hub, or an absolute path, `~` expanded. Raises WrongValue.

    Whether there is such a model is for the daemon to say.
    """
    expected = MODEL_EXPECTED
    if not isinstance(value, str) or not value.strip():
        raise WrongValue(expected)
    if value == BUNDLED or is_hub_name(value):
        return value
    try:
        path = Path(value).expanduser()
    except RuntimeError:  # no home folder to put in place of the tilde
        raise WrongValue(expected) from None
    if not path.is_absolute() or "\0" in value:
        raise WrongValue(expected)
    return str(path)


def is_hub_name(text: str) -> bool:
    """ORG/NAME or ORG/NAME@REVISION: the rule of model/hub.py, which this side may not import."""
    repo, at, revision = text.partition("@")
    is_repo = _HUB_REPO.fullmatch(repo) and "--" not in repo and not repo.endswith((".gguf", ".git", "-", "."))
    return bool(is_repo) and ".." not in text and (not at or _HUB_REVISION.fullmatch(revision) is not None)


def _one_of(words: tuple[str, ...]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in words:
            raise WrongValue(f"{', '.join(words[:-1])} or {words[-1]}")
        return str(value)

    return parse


def _whole(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not _is_number(value) or not least <= value <= most or int(value) != value:
            raise WrongValue(f"a whole number from {least} to {most}")
        return int(value)

    return parse


def _minutes(value: object) -> float:
    most = 7 * 24 * 60
    if not _is_number(value) or not 0 < value <= most:
        raise WrongValue(f"a number of minutes above 0 and up to {most}")
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _share(value: object) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise WrongValue("a number from 0 to 1")
    return float(value)


def _words(value: object) -> tuple[str, ...]:
    """A list of words; from the environment, where they are one text, with commas between them."""
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise WrongValue("a list of strings")
    return tuple(value)


def _places(value: object) -> tuple[str, ...]:
    expected = f"a list of {' and '.join(PLACES)}"
    try:
        words = _words(value)
    except WrongValue:
        raise WrongValue(expected) from None
    if any(word not in PLACES for word in words):
        raise WrongValue(expected)
    return words


def _patterns(value: object) -> tuple[str, ...]:
    """A list of patterns as in .gitignore; in the environment with commas between them, so that none can hold one."""
    patterns = _words(value)
    try:
        GitIgnoreSpec.from_lines(patterns)
    except (ValueError, re.error):  # the first is pathspec's own
        raise WrongValue("a list of patterns as in .gitignore") from None
    return patterns


def _languages(value: object) -> Mapping[str, bool]:
    """An object of flags; from the environment, names with commas between them, those after a minus sign off: `-*,python` is Python alone."""
    if isinstance(value, str):
        value = {word.removeprefix("-"): not word.startswith("-") for word in _words(value)}
    if not isinstance(value, Mapping) or not all(name and isinstance(flag, bool) for name, flag in value.items()):
        raise WrongValue("an object of language ids with true or false")
    return {str(name): flag for name, flag in value.items()}


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValue("true or false")
    return value


_PARSERS: dict[str, Callable[[object], Any]] = {
    "model": parse_model,
    "precision": _one_of(PRECISIONS),
    "context_max_tokens": _whole(0, 16_777_216),
    "idle_minutes": _minutes,
    "memory_mb": _whole(0, 1_048_576),
    "disk_mb": _whole(0, 16_777_216),
    "snapshots": _one_of(SNAPSHOTS),
    "max_tokens": _whole(1, 1024),
    "max_lines": _whole(1, 100),
    "budget_ms": _whole(50, 600_000),
    "alternatives": _whole(1, 5),
    "automatic": _flag,
    "delay_ms": _whole(0, 10_000),
    "delay_lines_ms": _whole(0, 10_000),
    "min_confidence": _share,
    "disable_in": _places,
    "languages": _languages,
    "exclude": _patterns,
    "enable": _flag,
    "statistics": _flag,
    "status": _flag,
    "reports": _flag,
}


_LISTS = ("disable_in", "languages", "exclude")  # an environment variable of these is text, whatever it looks like


def _set(settings: Settings, key: str, value: object, *, name: str, problems: list[str]) -> Settings:
    try:
        return replace(settings, **{key: _PARSERS[key](value)})
    except WrongValue as expected:
        used = getattr(settings, key)
        used = list(used) if isinstance(used, tuple) else used
        problems.append(f"{name}: expected {expected}, found {_shown(value)}; {used} is used")
        return settings


def _from_text(text: str) -> object:
    """An environment variable as the value that it would be in JSON."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
