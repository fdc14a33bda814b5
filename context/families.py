"""How languages write comments and strings: a few families, and which language is of which; and a language by a file's name.

Knows: LSP's names of languages (`languageId`), endings of file names. Does not know: texts, what is done with a comment.
"""

from context.lexing import Construct, Family


def _words(text: str) -> list[str]:
    return text.split()


def _line(start: str, *, guard: str = "") -> Construct:
    """A comment up to the end of its line. `guard`: what must not, or must, stand around its first character."""
    return Construct("comment", start[0], rf"{guard}{start[1:]}[^\n]*")


def _block(start: str, end: str) -> Construct:
    return Construct("comment", start[0], rf"{start[1:]}[\s\S]*?(?:(?P<e>{end})|\Z)", True)


def _nested(first: str, rest: str, opens: str, closes: str) -> Construct:
    return Construct("comment", first, rest, True, special="nested", opens=opens, closes=closes)


def _string(quote: str, *, guard: str = "", is_multi: bool = False) -> Construct:
    """With backslashes, up to its quote or, unless `is_multi`, to the end of its line."""
    stop = "" if is_multi else r"\n"
    escape = r"\\(?:[\s\S]|\Z)"
    body = rf"[^{quote}\\{stop}]*(?:{escape}[^{quote}\\{stop}]*)*"
    return Construct("string", quote, rf"{guard}{body}(?P<e>{quote})?", is_multi)


def _plain_string(quote: str, *, guard: str = "", is_multi: bool = True) -> Construct:
    """Without backslashes; a doubled quote goes on, since it ends one string and begins the next."""
    return Construct(
        "string", quote, rf"{guard}[^{quote}{'' if is_multi else chr(92) + 'n'}]*(?P<e>{quote})?", is_multi
    )


def _triple(quote: str) -> Construct:
    body = rf"[^{quote}\\]*(?:(?:\\(?:[\s\S]|\Z)|{quote}(?!{quote}{quote}))[^{quote}\\]*)*"
    return Construct("string", quote, rf"{quote}{quote}{body}(?P<e>{quote}{quote}{quote})?", True)


def _heredoc(opening: str) -> Construct:
    """`opening` has the word in a group `h`; the text goes from the next line on to a line that has nothing but the word."""
    return Construct(
        "string", "<", rf"{opening}[^\n]*(?:\n(?![ \t]*(?P=h)[;,)]?[ \t]*(?:\n|\Z))[^\n]*)*(?P<e>\n[ \t]*(?P=h))?", True
    )


SLASHES, STARS, HASH = _line("//"), _block(r"/\*", r"\*/"), _line("#")
NESTED_STARS = _nested("/", r"\*", r"/\*", r"\*/")
DOUBLE, SINGLE, BACKTICK = _string('"'), _string("'"), _plain_string("`")
# A letter is no string: a lone quote is a lifetime, or belongs to a name or a number.
LETTER = Construct("", "'", r"(?<![\w]')(?:\\[^\n]{1,9}?|[^\\'\n])'")
REGEX = Construct("", "/", r"(?![*/\n ])(?:[^/\\\[\n]|\\[^\n]|\[(?:[^\]\\\n]|\\[^\n])*\])+/[a-z]*", special="regex")
ESCAPED = Construct("", "\\", r"[\s\S]")
DASHES = _line("--")

C = Family([SLASHES, STARS, DOUBLE, _string("'", guard=r"(?<![0-9A-Fa-f]')")])
CPP = Family(
    [
        Construct("string", '"', r'(?<=R")(?P<r>[^()\s\\"]{0,16})\([\s\S]*?(?:(?P<e>\)(?P=r)")|\Z)', True),
        *C.constructs,
    ]
)
CSHARP = Family([SLASHES, STARS, _triple('"'), _plain_string('"', guard=r'(?:(?<=@")|(?<=@\$"))'), *C.constructs[2:]])
JAVA = Family([SLASHES, STARS, _triple('"'), DOUBLE, SINGLE])
NESTED_C = Family([SLASHES, NESTED_STARS, _triple('"'), DOUBLE, LETTER])
DART = Family([SLASHES, NESTED_STARS, _triple('"'), _triple("'"), DOUBLE, SINGLE])
SCRIPT = Family(
    [SLASHES, STARS, DOUBLE, SINGLE, Construct("string", "`", "", True, special="template"), REGEX],
)
GO = Family([SLASHES, STARS, DOUBLE, BACKTICK, SINGLE])
RUST = Family(
    [
        SLASHES,
        NESTED_STARS,
        Construct("string", '"', r'(?<=r##")[\s\S]*?(?:(?P<e>"##)|\Z)', True),
        Construct("string", '"', r'(?<=r#")[\s\S]*?(?:(?P<e>"#)|\Z)', True),
        _plain_string('"', guard=r'(?<=\br")'),
        _string('"', is_multi=True),
        LETTER,
    ]
)
PHP = Family(
    [
        SLASHES,
        STARS,
        _line("#", guard=r"(?!\[)"),
        Construct("", "?", r">[\s\S]*?(?:<\?|\Z)"),
        _string('"', is_multi=True),
        _string("'", is_multi=True),
        _heredoc(r"<<[ \t]*['\"]?(?P<h>[A-Za-z_]\w*)['\"]?"),
    ]
)
PYTHON = Family([HASH, _triple('"'), _triple("'"), DOUBLE, SINGLE])
RUBY = Family(
    [
        HASH,
        Construct("comment", "=", r"(?:(?<=\n=)|(?<=\A=))begin\b[\s\S]*?(?:(?P<e>\n=end\b)|\Z)", True),
        _heredoc(r"<[~-]?(?P<hq>['\"`]?)(?P<h>[A-Z_]\w*)(?P=hq)"),
        *(_string(quote, is_multi=True) for quote in "\"'`"),
        REGEX,
    ]
)
PERL = Family(
    [
        Construct("", "$", r"[#'\"/]"),
        HASH,
        Construct("comment", "=", r"(?:(?<=\n=)|(?<=\A=))[a-z]\w*[\s\S]*?(?:(?P<e>\n=cut\b)|\Z)", True),
        _heredoc(r"<~?(?P<hq>['\"]?)(?P<h>[A-Z_]\w*)(?P=hq)"),
        *(_string(quote, is_multi=True) for quote in "\"'"),
        REGEX,
    ]
)
SHELL = Family(
    [
        ESCAPED,
        _line("#", guard=r"(?<![^\s;(]#)"),
        _heredoc(r"<-?[ \t]*\\?(?P<hq>['\"]?)(?P<h>[A-Za-z_]\w*)(?P=hq)"),
        _string('"', is_multi=True),
        _plain_string("'"),
    ]
)
POWERSHELL = Family([_block("<#", "#>"), HASH, _string('"', is_multi=True), _plain_string("'")])
# A quote in the middle of a word of YAML is an apostrophe.
YAML = Family(
    [
        _line("#", guard=r"(?<![^\s]#)"),
        _string('"', guard=r'(?<![^\s\[{,:(-]")', is_multi=True),
        _plain_string("'", guard=r"(?<![^\s\[{,:(-]')"),
    ]
)
TOML = Family([HASH, _triple('"'), _triple("'"), DOUBLE, _plain_string("'", is_multi=False)])
HASHES = Family([HASH, _triple('"'), DOUBLE, _plain_string("'", guard=r"(?<![\w]')", is_multi=False)])
MAKE = Family([ESCAPED, HASH])
CMAKE = Family([Construct("comment", "#", r"\[\[[\s\S]*?(?:(?P<e>\]\])|\Z)", True), HASH, _string('"', is_multi=True)])
JULIA = Family([_nested("#", "=", "#=", "=#"), HASH, _triple('"'), DOUBLE, LETTER])
LUA = Family(
    [
        Construct("comment", "-", r"-\[(?P<l>=*)\[[\s\S]*?(?:(?P<e>\](?P=l)\])|\Z)", True),
        DASHES,
        Construct("string", "[", r"(?P<m>=*)\[[\s\S]*?(?:(?P<e>\](?P=m)\])|\Z)", True),
        DOUBLE,
        SINGLE,
    ]
)
SQL = Family([DASHES, NESTED_STARS, _plain_string("'"), _plain_string('"', is_multi=False), _plain_string("`")])
HASKELL = Family([_line("--", guard=r"(?!-*-[!#$%&*+./<=>?@^|~])"), _nested("{", "-", r"\{-", r"-\}"), DOUBLE, LETTER])
OCAML = Family([_nested("(", r"\*(?!\))", r"\(\*", r"\*\)"), _string('"', is_multi=True), LETTER])
FSHARP = Family([SLASHES, _nested("(", r"\*(?!\))", r"\(\*", r"\*\)"), _triple('"'), DOUBLE, LETTER])
PASCAL = Family([SLASHES, _block("{", r"\}"), _block(r"(\*", r"\*\)"), _plain_string("'", is_multi=False)])
LISP = Family([ESCAPED, _line(";"), _nested("#", r"\|", r"#\|", r"\|#"), _string('"', is_multi=True)])
ERLANG = Family([Construct("", "$", r"\\?."), _line("%"), _string('"', is_multi=True), SINGLE])
PERCENT = Family([ESCAPED, _line("%")])
MATLAB = Family([_line("%"), DOUBLE, _plain_string("'", guard=r"(?<![\w)\]}.']')", is_multi=False)])
ADA = Family([DASHES, _plain_string('"', is_multi=False), LETTER])
FORTRAN = Family([_line("!"), _plain_string('"', is_multi=False), _plain_string("'", is_multi=False)])
BASIC = Family([_line("'"), _plain_string('"', is_multi=False)])
BATCH = Family([_line("::"), _plain_string('"', is_multi=False)])
VIM = Family(
    [
        Construct("comment", '"', r'(?:(?<=\n")|(?<=\A")|(?<=[ \t]")(?= ))[^\n]*'),
        DOUBLE,
        _plain_string("'", is_multi=False),
    ]
)
ASSEMBLY = Family([_line(";"), STARS, SLASHES, DOUBLE])
INI = Family([_line("#", guard=r"(?<![^\s]#)"), _line(";", guard=r"(?<![^\s];)")])
TERRAFORM = Family([HASH, SLASHES, STARS, _heredoc(r"<-?(?P<h>[A-Z_]\w*)"), DOUBLE])
NIX = Family(
    [HASH, STARS, _string('"', is_multi=True), Construct("string", "'", r"'[\s\S]*?(?:(?P<e>''(?!['$\\]))|\Z)", True)]
)
CSS = Family([STARS, DOUBLE, SINGLE])
SCSS = Family([Construct("", ":", "//"), SLASHES, *CSS.constructs])
JSON = Family([SLASHES, STARS, DOUBLE])
TAG = Construct("tag", "<", r"[A-Za-z/!?][^<>\"']*(?:(?:\"[^\"]*\"|'[^']*')[^<>\"']*)*(?P<q>[\"'][^\"']*\Z)?")
XML = Family([_block("<!--", "-->"), Construct("string", "<", r"!\[CDATA\[[\s\S]*?(?:(?P<e>\]\]>)|\Z)", True), TAG])
HTML = Family(
    [
        _block("<!--", "-->"),
        Construct("", "<", r"script\b[^>]*>", special="embedded", closes="</script", inner=SCRIPT),
        Construct("", "<", r"style\b[^>]*>", special="embedded", closes="</style", inner=SCSS),
        TAG,
    ]
)
PROSE = Family([_block("<!--", "-->")])
NOTHING = Family([])
# Of a language that is not known, only what is so in most.
UNKNOWN = Family([_line("//", guard=r"(?<!:/)"), _line("#", guard=r"(?<![^\s]#)(?=[ !])"), STARS, DOUBLE])

_FAMILIES: list[tuple[Family, str]] = [
    (C, "c objective-c objc metal hlsl glsl solidity"),
    (CPP, "cpp objective-cpp objcpp cuda cuda-cpp arduino"),
    (CSHARP, "csharp razor"),
    (JAVA, "java groovy gradle apex"),
    (NESTED_C, "kotlin scala swift d"),
    (DART, "dart"),
    (SCRIPT, "javascript typescript javascriptreact typescriptreact mjs coffeescript"),
    (GO, "go go.mod"),
    (Family([SLASHES, DOUBLE, LETTER]), "zig"),
    (RUST, "rust"),
    (PHP, "php"),
    (PYTHON, "python cython starlark bazel gdscript mojo"),
    (RUBY, "ruby crystal"),
    (PERL, "perl perl6 raku"),
    (SHELL, "shellscript sh bash zsh fish dockerfile"),
    (POWERSHELL, "powershell"),
    (YAML, "yaml dockercompose github-actions-workflow"),
    (TOML, "toml"),
    (HASHES, "r elixir graphql nim ignore properties awk tcl gn meson"),
    (MAKE, "makefile"),
    (CMAKE, "cmake"),
    (JULIA, "julia"),
    (LUA, "lua luau"),
    (SQL, "sql plsql mysql postgres sqlite"),
    (HASKELL, "haskell elm purescript idris agda"),
    (OCAML, "ocaml reason coq"),
    (FSHARP, "fsharp"),
    (PASCAL, "pascal"),
    (LISP, "lisp commonlisp emacs-lisp elisp scheme racket clojure fennel hy"),
    (ERLANG, "erlang"),
    (PERCENT, "latex tex bibtex prolog"),
    (MATLAB, "matlab octave"),
    (ADA, "ada vhdl"),
    (Family([SLASHES, STARS, DOUBLE]), "verilog systemverilog proto proto3 protobuf thrift kdl"),
    (FORTRAN, "fortran fortran-modern"),
    (BASIC, "vb vbscript"),
    (BATCH, "bat"),
    (VIM, "vim viml"),
    (ASSEMBLY, "asm nasm assembly"),
    (INI, "ini editorconfig systemd gitconfig"),
    (TERRAFORM, "terraform hcl"),
    (NIX, "nix"),
    (CSS, "css"),
    (SCSS, "scss less sass stylus"),
    (JSON, "json jsonc json5"),
    (XML, "xml xsl svg"),
    (HTML, "html vue svelte astro handlebars jinja jinja-html django-html erb ejs"),
    (PROSE, "markdown mdx restructuredtext asciidoc org"),
    (NOTHING, "plaintext text log diff csv git-commit gitcommit git-rebase"),
]
_BY_LANGUAGE = {language: family for family, languages in _FAMILIES for language in _words(languages)}
PROSE_LANGUAGES = frozenset(
    _words("markdown mdx restructuredtext asciidoc org plaintext text log latex tex git-commit gitcommit")
)
LISPS = frozenset(language for language, family in _BY_LANGUAGE.items() if family is LISP)

_ENDS = """
python py pyi pyw | cython pyx pxd | javascript js mjs cjs | javascriptreact jsx | typescript ts mts cts
typescriptreact tsx | c c h | cpp cc cpp cxx hpp hh hxx ino | cuda cu cuh | csharp cs | java java | kotlin kt kts
scala scala sc | swift swift | groovy groovy gradle | dart dart | go go | rust rs | zig zig | php php
ruby rb rake gemspec | crystal cr | perl pl pm | shellscript sh bash zsh ksh fish | powershell ps1 psm1
yaml yaml yml | toml toml | r r | elixir ex exs | graphql graphql gql | nim nim | makefile mk | cmake cmake
julia jl | lua lua | sql sql | haskell hs lhs | elm elm | purescript purs | ocaml ml mli | fsharp fs fsi fsx
pascal pas | lisp lisp lsp cl | emacs-lisp el | scheme scm ss | racket rkt | clojure clj cljs cljc edn
erlang erl hrl | latex tex sty cls | matlab m | ada adb ads | vhdl vhd vhdl | verilog v vh | systemverilog sv svh
proto3 proto | fortran f90 f95 f03 f08 | vb vb | bat bat cmd | vim vim | asm asm s | ini ini cfg conf
terraform tf tfvars | hcl hcl | nix nix | css css | scss scss | less less | json json | jsonc jsonc json5
xml xml xsd xsl svg plist | html html htm | vue vue | svelte svelte | astro astro | markdown md markdown mdx
restructuredtext rst | plaintext txt log | solidity sol | diff diff patch | handlebars hbs | objective-c mm
""".replace("\n", "|")
LANGUAGE_BY_END = {
    end: language for row in _ENDS.split("|") if row.strip() for language, *ends in [row.split()] for end in ends
}
LANGUAGE_BY_NAME = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "gemfile": "ruby",
    "rakefile": "ruby",
    "jenkinsfile": "groovy",
    "commit_editmsg": "git-commit",
    ".bashrc": "shellscript",
    ".zshrc": "shellscript",
    ".profile": "shellscript",
    ".vimrc": "vim",
    ".gitignore": "ignore",
    ".gitconfig": "gitconfig",
    ".editorconfig": "editorconfig",
}


def family_of(language: str) -> Family:
    """By an LSP `languageId`, in any case; of an unknown one what is so in most languages."""
    return _BY_LANGUAGE.get(language.lower(), UNKNOWN)
