"""Settings: each row is what was given, what is used, and what is said about it."""

from dataclasses import replace
from typing import Any

import pytest

from lsp.settings import DEFAULTS, Settings, read_settings

KNOWN = (
    "known are model, precision, context_max_tokens, idle_minutes, memory_mb, disk_mb, snapshots, max_tokens, max_lines, budget_ms, alternatives, "
    "automatic, delay_ms, delay_lines_ms, min_confidence, disable_in, languages, exclude, enable, statistics, status, reports"
)
WHOLE = "a whole number from 1 to 1024"
MODEL = '"bundled", an absolute path or a name on the hub such as ORG/NAME'
PRECISION = "auto, fp32, bf16, int8 or int4"
PLACES = "a list of comment and string"
LANGUAGES = "an object of language ids with true or false"

ROWS: list[tuple[Any, dict[str, str], Settings, list[str]]] = [
    (None, {}, DEFAULTS, []),
    ({}, {}, DEFAULTS, []),
    ({"max_tokens": 12, "enable": False}, {}, replace(DEFAULTS, max_tokens=12, enable=False), []),
    ({"max_tokens": 12.0}, {}, replace(DEFAULTS, max_tokens=12), []),
    ({"reports": True}, {}, replace(DEFAULTS, reports=True), []),
    (None, {"CODESTRAL_LSP_REPORTS": "true"}, replace(DEFAULTS, reports=True), []),
    ({"idle_minutes": 0.5}, {}, replace(DEFAULTS, idle_minutes=0.5), []),
    ({"model": "/m/codestral"}, {}, replace(DEFAULTS, model="/m/codestral"), []),
    ({"model": "some-org/m@v2"}, {}, replace(DEFAULTS, model="some-org/m@v2"), []),
    ({"precision": "int4"}, {}, replace(DEFAULTS, precision="int4"), []),
    (None, {"CODESTRAL_LSP_PRECISION": "bf16"}, replace(DEFAULTS, precision="bf16"), []),
    ({"precision": "int2"}, {}, DEFAULTS, [f"precision: expected {PRECISION}, found 'int2'; auto is used"]),
    ({"precision": ["int4"]}, {}, DEFAULTS, [f"precision: expected {PRECISION}, found ['int4']; auto is used"]),
    ({"model": "m"}, {}, DEFAULTS, [f"model: expected {MODEL}, found 'm'; bundled is used"]),
    ({"model": 3}, {}, DEFAULTS, [f"model: expected {MODEL}, found 3; bundled is used"]),
    ({"speed": 9}, {}, DEFAULTS, [f"speed: unknown setting; {KNOWN}"]),
    ({"max_tokens": "many"}, {}, DEFAULTS, [f"max_tokens: expected {WHOLE}, found 'many'; 64 is used"]),
    ({"max_tokens": True}, {}, DEFAULTS, [f"max_tokens: expected {WHOLE}, found True; 64 is used"]),
    ({"max_tokens": 0}, {}, DEFAULTS, [f"max_tokens: expected {WHOLE}, found 0; 64 is used"]),
    ({"max_tokens": float("nan")}, {}, DEFAULTS, [f"max_tokens: expected {WHOLE}, found nan; 64 is used"]),
    ({"enable": "yes"}, {}, DEFAULTS, ["enable: expected true or false, found 'yes'; True is used"]),
    ([1], {}, DEFAULTS, ["initializationOptions: expected an object, found [1]; defaults are used"]),
    (None, {"CODESTRAL_LSP_MAX_TOKENS": "9"}, replace(DEFAULTS, max_tokens=9), []),
    (None, {"CODESTRAL_LSP_ENABLE": "false"}, replace(DEFAULTS, enable=False), []),
    (None, {"CODESTRAL_LSP_MODEL": "/m"}, replace(DEFAULTS, model="/m"), []),
    ({"max_tokens": 8}, {"CODESTRAL_LSP_MAX_TOKENS": "9"}, replace(DEFAULTS, max_tokens=8), []),
    (
        {"max_tokens": -1},
        {"CODESTRAL_LSP_MAX_TOKENS": "9"},
        replace(DEFAULTS, max_tokens=9),
        [f"max_tokens: expected {WHOLE}, found -1; 9 is used"],
    ),
    (
        None,
        {"CODESTRAL_LSP_BUDGET_MS": "soon"},
        DEFAULTS,
        ["CODESTRAL_LSP_BUDGET_MS: expected a whole number from 50 to 600000, found 'soon'; 1500 is used"],
    ),
    ({"max_lines": 1, "alternatives": 5}, {}, replace(DEFAULTS, max_lines=1, alternatives=5), []),
    ({"max_lines": 0}, {}, DEFAULTS, ["max_lines: expected a whole number from 1 to 100, found 0; 6 is used"]),
    ({"alternatives": 6}, {}, DEFAULTS, ["alternatives: expected a whole number from 1 to 5, found 6; 3 is used"]),
    ({"delay_ms": 0, "delay_lines_ms": 10_000}, {}, replace(DEFAULTS, delay_ms=0, delay_lines_ms=10_000), []),
    ({"delay_ms": 0.5}, {}, DEFAULTS, ["delay_ms: expected a whole number from 0 to 10000, found 0.5; 50 is used"]),
    ({"automatic": False, "statistics": False}, {}, replace(DEFAULTS, automatic=False, statistics=False), []),
    ({"status": True}, {}, replace(DEFAULTS, status=True), []),
    ({"automatic": 0}, {}, DEFAULTS, ["automatic: expected true or false, found 0; True is used"]),
    (None, {"CODESTRAL_LSP_STATISTICS": "false"}, replace(DEFAULTS, statistics=False), []),
    ({"min_confidence": 1}, {}, replace(DEFAULTS, min_confidence=1.0), []),
    ({"min_confidence": 1.5}, {}, DEFAULTS, ["min_confidence: expected a number from 0 to 1, found 1.5; 0.2 is used"]),
    (
        {"min_confidence": float("nan")},
        {},
        DEFAULTS,
        ["min_confidence: expected a number from 0 to 1, found nan; 0.2 is used"],
    ),
    ({"disable_in": ["comment", "string"]}, {}, replace(DEFAULTS, disable_in=("comment", "string")), []),
    ({"disable_in": ["code"]}, {}, DEFAULTS, [f"disable_in: expected {PLACES}, found ['code']; [] is used"]),
    ({"disable_in": True}, {}, DEFAULTS, [f"disable_in: expected {PLACES}, found True; [] is used"]),
    (None, {"CODESTRAL_LSP_DISABLE_IN": "comment, string"}, replace(DEFAULTS, disable_in=("comment", "string")), []),
    ({"languages": {"*": False, "go": True}}, {}, replace(DEFAULTS, languages={"*": False, "go": True}), []),
    ({"languages": ["go"]}, {}, DEFAULTS, [f"languages: expected {LANGUAGES}, found ['go']; {{}} is used"]),
    ({"languages": {"go": 1}}, {}, DEFAULTS, [f"languages: expected {LANGUAGES}, found {{'go': 1}}; {{}} is used"]),
    ({"languages": {"": True}}, {}, DEFAULTS, [f"languages: expected {LANGUAGES}, found {{'': True}}; {{}} is used"]),
    (None, {"CODESTRAL_LSP_LANGUAGES": "-*,go"}, replace(DEFAULTS, languages={"*": False, "go": True}), []),
    (None, {"CODESTRAL_LSP_LANGUAGES": "true"}, replace(DEFAULTS, languages={"true": True}), []),
    (
        None,
        {"CODESTRAL_LSP_LANGUAGES": "go,-"},
        DEFAULTS,
        [f"CODESTRAL_LSP_LANGUAGES: expected {LANGUAGES}, found 'go,-'; {{}} is used"],
    ),
    ({"exclude": ["*.md", "/gen/"]}, {}, replace(DEFAULTS, exclude=("*.md", "/gen/")), []),
    ({"exclude": [1]}, {}, DEFAULTS, ["exclude: expected a list of strings, found [1]; [] is used"]),
    (
        {"exclude": ["a", "\\"]},
        {},
        DEFAULTS,
        ["exclude: expected a list of patterns as in .gitignore, found ['a', '\\\\']; [] is used"],
    ),
    (None, {"CODESTRAL_LSP_EXCLUDE": "*.md,42"}, replace(DEFAULTS, exclude=("*.md", "42")), []),
    (None, {"CODESTRAL_LSP_EXCLUDE": "42"}, replace(DEFAULTS, exclude=("42",)), []),
    (None, {"CODESTRAL_LSP_EXCLUDE": ""}, DEFAULTS, []),
    (
        {"model": "x" * 100},
        {},
        DEFAULTS,
        [
            f"model: expected {MODEL}, found 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...; bundled is used"
        ],
    ),
]


@pytest.mark.parametrize(("options", "environment", "settings", "problems"), ROWS)
def test_settings(options: Any, environment: dict[str, str], settings: Settings, problems: list[str]) -> None:
    assert read_settings(options, environment) == (settings, tuple(problems))
