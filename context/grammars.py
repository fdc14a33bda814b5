"""The languages that outlines are made of: which parser reads a file, and which of its nodes declare what. Knows grammars; does not know outlines.

Nothing is imported from tree-sitter before the first file of a language is parsed: the front end starts without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tree_sitter


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """Node types by what an outline does with them; what is named in none of the sets is left out."""

    load: Callable[[], object]
    functions: frozenset[str]  # their bodies are cut away
    containers: frozenset[str] = frozenset()  # their members are declarations too
    types: frozenset[str] = frozenset()  # kept as they stand: their fields are what others use
    values: frozenset[str] = frozenset()  # kept in one line; a function inside is cut like a function
    wrappers: frozenset[str] = frozenset()  # belong to the declaration inside: export, template, decorators
    around: frozenset[str] = frozenset()  # looked through: what is declared inside counts as declared here
    bodies: frozenset[str] = frozenset()  # types of nodes that are bodies and no field called "body"
    comment: str = "//"
    closes: str = "}"  # ends a container
    cut: str = " { ... }"  # stands for a body
    wanted: str = ""  # regular expression: values outside of any container are kept where it fits their beginning
    hidden: str = r"[^({=]*\bprivate\b"  # regular expression: what is for the file alone


def grammar_of(path: str) -> Grammar | None:
    """By the ending of the file's name; None: a language that has no outlines."""
    return _GRAMMARS.get(path.rpartition(".")[2].lower()) if "." in path else None


def parse(grammar: Grammar, source: bytes, *, max_steps: int) -> "tree_sitter.Node | None":
    """The root of the syntax tree of UTF-8 text; None when that takes more than `max_steps` of the parser's (some hundred operations each)."""
    tree = parse_tree(grammar, source, max_steps=max_steps)
    return None if tree is None else tree.root_node


def parse_tree(
    grammar: Grammar, source: bytes, *, max_steps: int, since: "tree_sitter.Tree | None" = None
) -> "tree_sitter.Tree | None":
    """The whole tree. `since`: that of an older text, told of every edit since, whose parts are used again."""
    tree_sitter = import_module("tree_sitter")
    parser = tree_sitter.Parser(_language(grammar))
    n_steps = 0

    def is_too_much(offset: int, has_error: bool) -> bool:
        nonlocal n_steps
        n_steps += 1
        return n_steps > max_steps

    def read(offset: int, point: object) -> bytes:
        return source[offset : offset + _READ_BYTES]

    try:
        if since is None:
            return parser.parse(read, progress_callback=is_too_much)
        return parser.parse(read, since, progress_callback=is_too_much)
    except ValueError:  # what the library says to a parse that was stopped
        return None


@cache
def _language(grammar: Grammar) -> "tree_sitter.Language":
    return import_module("tree_sitter").Language(grammar.load())


_READ_BYTES = 1 << 16

_PYTHON = Grammar(
    load=lambda: import_module("tree_sitter_python").language(),
    functions=_words("function_definition"),
    containers=_words("class_definition"),
    values=_words("assignment type_alias_statement"),
    wrappers=_words("decorated_definition"),
    around=_words("expression_statement if_statement else_clause elif_clause try_statement except_clause block"),
    comment="#",
    closes="",
    cut=" ...",
    wanted=r"[A-Z]|\w+ *:|type ",
    hidden=r"(?:(?:async +)?def +|class +|type +)?_(?!_\w+__\b)|__all__\b",
)
_SCRIPT = {
    "functions": _words("""
        function_declaration generator_function_declaration method_definition function_signature method_signature
        abstract_method_signature arrow_function function_expression
    """),
    "containers": _words("class_declaration abstract_class_declaration class internal_module module"),
    "types": _words("interface_declaration type_alias_declaration enum_declaration"),
    "values": _words(
        "lexical_declaration variable_declaration field_definition public_field_definition assignment_expression"
    ),
    "wrappers": _words("export_statement ambient_declaration"),
    "around": _words("expression_statement"),
    "wanted": r"(?!.*\brequire\()",
    "hidden": r"(?:static +|async +)*#|[^({=]*\bprivate\b",
}
_JAVASCRIPT = Grammar(load=lambda: import_module("tree_sitter_javascript").language(), **_SCRIPT)
_TYPESCRIPT = Grammar(load=lambda: import_module("tree_sitter_typescript").language_typescript(), **_SCRIPT)
_TSX = Grammar(load=lambda: import_module("tree_sitter_typescript").language_tsx(), **_SCRIPT)
_GO = Grammar(
    load=lambda: import_module("tree_sitter_go").language(),
    functions=_words("function_declaration method_declaration"),
    types=_words("type_declaration const_declaration"),
    values=_words("package_clause var_declaration"),
)
_RUST = Grammar(
    load=lambda: import_module("tree_sitter_rust").language(),
    functions=_words("function_item function_signature_item macro_definition"),
    containers=_words("impl_item trait_item mod_item foreign_mod_item"),
    types=_words("struct_item enum_item union_item"),
    values=_words("const_item static_item type_item associated_type"),
    comment="///",
)
_JAVA = Grammar(
    load=lambda: import_module("tree_sitter_java").language(),
    functions=_words(
        "method_declaration constructor_declaration compact_constructor_declaration annotation_type_element_declaration"
    ),
    containers=_words(
        "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration"
    ),
    values=_words("package_declaration field_declaration constant_declaration enum_constant"),
    around=_words("enum_body_declarations"),
)
_KOTLIN = Grammar(
    load=lambda: import_module("tree_sitter_kotlin").language(),
    functions=_words("function_declaration secondary_constructor"),
    containers=_words("class_declaration object_declaration companion_object"),
    values=_words("package_header property_declaration type_alias enum_entry"),
    bodies=_words("function_body class_body enum_class_body block"),
)
_C_SHARP = Grammar(
    load=lambda: import_module("tree_sitter_c_sharp").language(),
    functions=_words(
        "method_declaration constructor_declaration operator_declaration conversion_operator_declaration delegate_declaration"
    ),
    containers=_words(
        "namespace_declaration class_declaration interface_declaration struct_declaration record_declaration"
    ),
    types=_words("enum_declaration"),
    values=_words(
        "file_scoped_namespace_declaration field_declaration property_declaration indexer_declaration event_field_declaration"
    ),
)
_PHP = Grammar(
    load=lambda: import_module("tree_sitter_php").language_php(),
    functions=_words("function_definition method_declaration"),
    containers=_words("class_declaration interface_declaration trait_declaration enum_declaration"),
    values=_words("namespace_definition const_declaration property_declaration enum_case use_declaration"),
)
_RUBY = Grammar(
    load=lambda: import_module("tree_sitter_ruby").language(),
    functions=_words("method singleton_method"),
    containers=_words("module class singleton_class"),
    values=_words("assignment call"),
    comment="#",
    closes="end",
    cut="; ... end",
    wanted=r"[A-Z]\w* *=",
    hidden=r"(?![A-Z:]|@?\w+ *=|def |class |module |(?:attr_|include|extend|prepend|belongs_to|has_|delegate|scope)\w*\b)",
)
_C_TYPES = _words("struct_specifier union_specifier enum_specifier type_definition")
_C_AROUND = _words("preproc_ifdef preproc_if preproc_else preproc_elif linkage_specification declaration_list")
_C_WANTED = r"(?!#define \w+\s*$)"  # all but what keeps a header from being read twice
_C = Grammar(
    load=lambda: import_module("tree_sitter_c").language(),
    functions=_words("function_definition"),
    types=_C_TYPES,
    values=_words("declaration preproc_def preproc_function_def"),
    around=_C_AROUND,
    wanted=_C_WANTED,
)
_CPP = Grammar(
    load=lambda: import_module("tree_sitter_cpp").language(),
    functions=_words("function_definition"),
    containers=_words("namespace_definition class_specifier struct_specifier"),
    types=_words("union_specifier enum_specifier type_definition"),
    values=_words(
        "declaration field_declaration alias_declaration concept_definition preproc_def preproc_function_def"
    ),
    wrappers=_words("template_declaration"),
    around=_C_AROUND,
    wanted=_C_WANTED,
)

_GRAMMARS = {
    end: grammar
    for ends, grammar in (
        ("py pyi pyw", _PYTHON),
        ("js mjs cjs jsx", _JAVASCRIPT),
        ("ts mts cts", _TYPESCRIPT),
        ("tsx", _TSX),
        ("go", _GO),
        ("rs", _RUST),
        ("java", _JAVA),
        ("kt kts", _KOTLIN),
        ("cs", _C_SHARP),
        ("php", _PHP),
        ("rb", _RUBY),
        ("c", _C),
        ("h cc cpp cxx c++ hh hpp hxx inl ipp cu cuh", _CPP),  # C's headers are read well enough as C++
    )
    for end in ends.split()
}
