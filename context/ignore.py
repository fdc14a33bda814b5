"""What is never read, judged by a file's name and text: secrets, generated and minified files, and data.

Knows names and text. Does not know the disk, git, `.gitignore` rules (those are in `listing`), tokens or LSP.

Names are compared without regard to case. A secret is left out by its name alone, before it is opened, because a
recurrent state cannot un-see a file.
"""

import re
from collections.abc import Sequence
from fnmatch import translate


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Folders whose files are secrets whatever their names are.
_SECRET_FOLDERS = _words(".aws .azure .gnupg .kube .password-store .secrets .ssh")
_SECRET_PATHS = _words(
    ".docker/config.json .config/gh/hosts.yml .config/gcloud/* .m2/settings.xml .m2/settings-security.xml"
)
# In this order: environment files; keys, certificates and the stores that hold them; files in which tools keep
# passwords, tokens and what was typed; credentials under the names that people give them. `credentials.py` is source
# and is read.
_SECRET_NAMES = _words("""
    .env .env.* *.env .envrc .dev.vars .dev.vars.* .renviron

    *.pem *.key *.p8 *.p12 *.pfx *.pkcs12 *.pk8 *.p7b *.crt *.cer *.der *.csr *.ppk *.agekey *.jks *.jceks *.keystore
    *.keytab *.kdb *.kdbx *.gpg *.pgp *.ovpn *.mobileprovision id_rsa* id_dsa* id_ecdsa* id_ed25519*

    .netrc _netrc .npmrc .pypirc .git-credentials .pgpass .my.cnf .dockercfg .boto .s3cfg .terraformrc htpasswd
    *.htpasswd .vault-token .vault_pass* auth.json wp-config.php local.settings.json kubeconfig *.kubeconfig
    .bash_history .zsh_history .python_history .psql_history .mysql_history .node_repl_history

    credentials .credentials* credentials*.json credentials*.yaml credentials*.yml credentials*.toml credentials*.ini
    credentials*.enc credentials*.xml credentials*.csv credentials*.txt secrets.* secret.json secret.yaml secret.yml
    secret.toml secret.txt *.secret *.secrets client_secret*.json service-account*.json service_account*.json
    *-service-account.json *_service_account.json *firebase-adminsdk*.json *.tfstate *.tfstate.* *.tfvars *.tfvars.json
""")
# A template shows which variables there are and holds no values.
_TEMPLATE_STARTS = (".env", ".dev.vars")
_TEMPLATE_ENDS = (".example", ".sample", ".template", ".dist")
# What editors and people append to a copy; `server.key.bak` is as secret as `server.key`.
_COPY_ENDS = ("~", ".bak", ".old", ".orig", ".save", ".tmp", ".swp", ".copy")
# In a folder called `secrets`, data is taken for a secret and code is not.
_SECRETS_FOLDER = "secrets"
_DATA_ENDS = ("", "yaml", "yml", "json", "toml", "ini", "cfg", "conf", "txt", "xml", "properties")

_TOOL_FOLDERS = _words("""
    .git .hg .svn .jj node_modules bower_components site-packages __pycache__ .venv .tox .nox .eggs *.egg-info
    *.dist-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints .cache .direnv .terraform .gradle
    .next .nuxt .svelte-kit .turbo .parcel-cache .yarn .pnpm-store .dart_tool .bundle .idea .vs deriveddata pods
""")
_LOCK_NAMES = _words("""
    *.lock *.lockfile package-lock.json npm-shrinkwrap.json pnpm-lock.yaml packages.lock.json bun.lockb go.sum
    go.work.sum package.resolved .terraform.lock.hcl cabal.project.freeze
""")
_GENERATED_NAMES = _words("""
    *.min.js *.min.mjs *.min.css *.bundle.js *.chunk.js *.map *.snap *_pb2.py *_pb2.pyi *_pb2_grpc.py *.pb.go *.pb.cc
    *.pb.h *.g.dart *.freezed.dart *.designer.cs *.generated.* *.tsbuildinfo *.pbxproj
""")
# Extensions of files that are not text, or text that teaches nothing about code.
_DULL_EXTENSIONS = frozenset(
    _words("""
    svg csv tsv ipynb log geojson jsonl ndjson po pot ics eps ps srt vtt lcov png jpg jpeg gif bmp ico icns webp avif
    tif tiff psd ai xcf heic mp3 mp4 m4a wav ogg flac avi mov mkv webm ttf otf woff woff2 eot zip gz tgz bz2 xz zst 7z
    rar tar jar war whl egg deb rpm dmg iso apk aab ipa cab exe dll so dylib o a obj lib pyc pyo pyd class wasm bin dat
    elf hex pdb ilk node pdf doc docx xls xlsx ppt pptx odt ods odp epub pages numbers db sqlite sqlite3 mdb parquet
    feather arrow avro orc rdb dump bak swp swo npy npz pt pth ckpt onnx h5 hdf5 pb tflite safetensors gguf ggml pkl
    pickle joblib mat rds rdata model spm
""")
)

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d")
_HEADER_LINES = 15
_HEADER_CHARS = 3000
_COMMENT = re.compile(r"""\s*(?:\#|//|/\*|\*|--|;|<!--|\"\"\"|'''|%|\{-|\(\*|rem\b|')""", re.IGNORECASE)
_GENERATED = re.compile(
    r"""@generated\b | \bDO\ NOT\ (?:EDIT|MODIFY)\b
      | (?i:\bthis\ (?:file|code|module|class)\ (?:is|was|has\ been)
            \ (?:auto-?|automatically\ |machine[- ])?generated\b)
      | (?i:\bauto(?:-|matically\ )?generated\ (?:by|from|file|code)\b)
      | (?i:\bcode\ generated\ by\b)""",
    re.VERBOSE,
)
_MAX_LINE_CHARS = 5000
_MAX_MEAN_LINE_CHARS = 300
_MIN_MINIFIED_CHARS = 2000
# Prose is often one paragraph a line, so only a really long line counts there.
_PROSE_ENDS = (".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc", ".org", ".tex")


def why_never_read(path: str, text: str | None = None) -> str | None:
    """Why a file of a repository is not to be read; None: it may be.

    `path` is relative to the workspace; one that ends in "/" is a folder. `text`, if given, is judged too.
    """
    reason = why_secret(path, text or "") or _why_dull(path)
    if reason is None and text is not None:
        reason = _why_generated(text) or _why_minified(path, text)
    return reason


def why_secret(path: str, text: str = "") -> str | None:
    """Why a file must not be fed to any model, not even when the user opens it; None: nothing secret is seen.

    `path` may be relative or absolute: the names of the folders count as well.
    """
    *folders, name = _parts(path)
    for folder in folders:
        if folder in _SECRET_FOLDERS:
            return f"a secret: in a folder {folder}/"
    whole = "/".join((*folders, name))
    for pattern, pattern_of_path in zip(_SECRET_PATHS, _SECRET_PATH_PATTERNS, strict=True):
        if pattern_of_path.search(whole):
            return f"a secret: {pattern}"
    name = _without_copy_end(name)
    is_template = name.startswith(_TEMPLATE_STARTS) and name.endswith(_TEMPLATE_ENDS)
    if not is_template and (pattern := _matching(name, _SECRET_NAMES, _ANY_SECRET_NAME)):
        return f"a secret: its name is like {pattern}"
    if _SECRETS_FOLDER in folders and name and _extension(name) in _DATA_ENDS:
        return f"a secret: data in a folder {_SECRETS_FOLDER}/"
    if found := _PRIVATE_KEY.search(text):
        return f"a secret: a private key at character {found.start()}"
    return None


def _why_dull(path: str) -> str | None:
    """Why the name says that reading the file is of no use."""
    *folders, name = _parts(path)
    for folder in folders:
        if pattern := _matching(folder, _TOOL_FOLDERS, _ANY_TOOL_FOLDER):
            return f"made by a tool: in a folder {pattern}/"
    if pattern := _matching(name, _LOCK_NAMES, _ANY_LOCK_NAME):
        return f"a lock file: its name is like {pattern}"
    if pattern := _matching(name, _GENERATED_NAMES, _ANY_GENERATED_NAME):
        return f"generated: its name is like {pattern}"
    if (extension := _extension(name)) in _DULL_EXTENSIONS:
        return f"not source text: .{extension}"
    return None


def _why_generated(text: str) -> str | None:
    """Looks at comments only, so that a program which merely handles generated files is still read."""
    for number, line in enumerate(text[:_HEADER_CHARS].split("\n")[:_HEADER_LINES], start=1):
        if _COMMENT.match(line) and (found := _GENERATED.search(line)):
            return f"generated: line {number} says {found.group()!r}"
    return None


def _why_minified(path: str, text: str) -> str | None:
    lengths = [len(line) for line in text.split("\n") if line]
    if not lengths:
        return None
    if max(lengths) > _MAX_LINE_CHARS:
        return f"minified: a line of {max(lengths)} characters, more than {_MAX_LINE_CHARS}"
    mean = sum(lengths) // len(lengths)
    if mean > _MAX_MEAN_LINE_CHARS and len(text) > _MIN_MINIFIED_CHARS and not path.lower().endswith(_PROSE_ENDS):
        return f"minified: lines of {mean} characters on average, more than {_MAX_MEAN_LINE_CHARS}"
    return None


def _parts(path: str) -> list[str]:
    # A backslash may be a separator of another system or part of a name; a separator is the safe guess.
    return path.lower().replace("\\", "/").split("/")


def _extension(name: str) -> str:
    return name.rpartition(".")[2] if "." in name[1:] else ""


def _without_copy_end(name: str) -> str:
    while (shorter := next((name.removesuffix(end) for end in _COPY_ENDS if name.endswith(end)), name)) != name:
        name = shorter
    return name


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns))


def _matching(name: str, patterns: Sequence[str], any_of_them: re.Pattern[str]) -> str | None:
    """The first pattern that fits; one regular expression for all of them answers the usual case, that none does."""
    if not any_of_them.match(name):
        return None
    return next(pattern for pattern in patterns if re.match(translate(pattern), name))


_ANY_SECRET_NAME = _any_of(_SECRET_NAMES)
_ANY_TOOL_FOLDER = _any_of(_TOOL_FOLDERS)
_ANY_LOCK_NAME = _any_of(_LOCK_NAMES)
_ANY_GENERATED_NAME = _any_of(_GENERATED_NAMES)
_SECRET_PATH_PATTERNS = tuple(re.compile("(?:^|/)" + translate(pattern)) for pattern in _SECRET_PATHS)
