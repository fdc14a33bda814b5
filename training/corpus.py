"""The corpus: Python's standard library and published packages under permissive licences, packed as repositories.

    python -m training.corpus --out build/corpus

Packages and their versions stand in packages.txt; a package whose metadata names no permissive licence is refused. Some whole packages are held
out: `fit` for the lookup gate, `test` for the figures of the model card. Writes train.jsonl, fit.jsonl and test.jsonl, one package a line:
{"package", "version", "licence", "files": [[path, text], ...]}.
"""

import argparse
import email.message
import hashlib
import json
import random
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|HPND|Zlib|Unlicense|Public Domain|0BSD|MIT-0|CNRI-Python)\b",
    re.I,
)
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|GNU|MPL|Mozilla|EUPL|CC-BY-SA|proprietary)", re.I)
MIN_FILE_BYTES, MAX_FILE_BYTES = 300, 80_000
MAX_PACKAGE_BYTES = 1_300_000  # so that no package is most of the corpus
SKIPPED_PARTS = {
    "_vendor",
    "vendor",
    "vendored",
    "locale",
    "lib2to3",
    "idlelib",
    "site-packages",
    "turtledemo",
    "__pycache__",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the corpus")
    parser.add_argument("--packages", type=Path, default=Path(__file__).with_name("packages.txt"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wheels = args.out / "wheels"
    roles = dict(read_packages(args.packages))
    download(roles, wheels)
    seen: set[str] = set()
    repositories: dict[str, list[dict]] = {"train": [standard_library(seen, args.seed)], "fit": [], "test": []}
    for requirement, role in roles.items():
        repository = from_wheel(find_wheel(wheels, requirement), seen, args.seed)
        if repository is None:
            print(f"{requirement}: refused, no permissive licence in its metadata", file=sys.stderr)
        else:
            repositories[role].append(repository)
    for role, rows in repositories.items():
        with (args.out / f"{role}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        n_bytes = sum(len(text) for row in rows for _, text in row["files"])
        print(f"{role}: {len(rows)} packages, {sum(len(row['files']) for row in rows)} files, {n_bytes / 1e6:.1f} MB")


def read_packages(path: Path) -> Iterator[tuple[str, str]]:
    """Lines of packages.txt are `name==version` and, for a held-out package, `fit` or `test`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split("#")[0].split()
        if words:
            yield words[0], words[1] if len(words) > 1 else "train"


def download(requirements: Iterable[str], folder: Path) -> None:
    """Fetches the wheels with pip, for one fixed platform so that the corpus does not depend on the machine."""
    folder.mkdir(exist_ok=True)
    platforms = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any"]
    flags = [flag for platform in platforms for flag in ("--platform", platform)]
    for requirement in requirements:
        if find_wheel(folder, requirement, missing_ok=True) is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run(
                [*command, "--python-version", "3.11", *flags, "--dest", str(folder), requirement], check=True
            )


def find_wheel(folder: Path, requirement: str, *, missing_ok: bool = False) -> Path | None:
    name, version = requirement.split("==")
    wanted = re.sub(r"[-_.]+", "_", name).lower()
    for path in sorted(folder.glob("*.whl")):
        found, found_version = path.name.split("-")[:2]
        if re.sub(r"[-_.]+", "_", found).lower() == wanted and found_version == version:
            return path
    if missing_ok:
        return None
    raise SystemExit(f"{folder}: no wheel for {requirement}")


def from_wheel(path: Path | None, seen: set[str], seed: int) -> dict | None:
    assert path is not None
    with zipfile.ZipFile(path) as wheel:
        metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        headers = email.message_from_bytes(wheel.read(metadata))
        licence = licence_of(headers)
        if licence is None:
            return None
        names = sorted(name for name in wheel.namelist() if name.endswith(".py"))
        files = choose(((name, wheel.read(name)) for name in names), seen, seed)
    return {"package": headers["Name"], "version": headers["Version"], "licence": licence, "files": files}


def licence_of(headers: email.message.Message) -> str | None:
    """The licence as the metadata names it, or None where none of its sources is permissive or one is copyleft."""
    classifiers = [
        value.split("::")[-1].strip() for value in headers.get_all("Classifier", []) if value.startswith("License")
    ]
    # Some packages paste the whole licence text into the License field: its first line names it.
    stated = [str(headers.get(key) or "").strip().split("\n")[0] for key in ("License-Expression", "License")]
    named = [text for text in [*stated, *classifiers] if text]
    if any(COPYLEFT.search(text) for text in named):
        return None
    return next((text[:60] for text in named if PERMISSIVE.search(text)), None)


def standard_library(seen: set[str], seed: int) -> dict:
    root = Path(sysconfig.get_path("stdlib"))
    names = (path for path in sorted(root.rglob("*.py")) if "test" not in path.relative_to(root).parts)
    pairs = ((str(path.relative_to(root)), path.read_bytes()) for path in names)
    version = ".".join(map(str, sys.version_info[:3]))
    files = choose(pairs, seen, seed, max_bytes=8 * MAX_PACKAGE_BYTES)
    return {"package": "python", "version": version, "licence": "PSF-2.0", "files": files}


def choose(
    pairs: Iterable[tuple[str, bytes]], seen: set[str], seed: int, *, max_bytes: int = MAX_PACKAGE_BYTES
) -> list[list[str]]:
    """Files worth learning from, each text once in the whole corpus, in path order; a run of whole folders where there are too many."""
    kept: list[list[str]] = []
    for name, data in pairs:
        digest = hashlib.sha256(data).hexdigest()
        if not MIN_FILE_BYTES < len(data) < MAX_FILE_BYTES or digest in seen or SKIPPED_PARTS & set(name.split("/")):
            continue
        try:
            text = data.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
        if is_code(text):
            seen.add(digest)
            kept.append([name, text])
    total = sum(len(text) for _, text in kept)
    if total <= max_bytes:
        return kept
    start = random.Random(f"{seed} {kept[0][0]}").randrange(len(kept))
    chosen, size = [], 0
    for name, text in kept[start:] + kept[:start]:
        if size + len(text) <= max_bytes:
            chosen.append([name, text])
            size += len(text)
    return sorted(chosen)


def is_code(text: str) -> bool:
    """Leaves out data tables, minified and generated files."""
    lines = text.split("\n")
    digits = sum(character.isdigit() for character in text)
    generated = re.search(r"(@generated|do not edit|auto-?generated|autogenerated)", text[:1000], re.I)
    ascii_share = len(text.encode("ascii", "ignore")) / len(text)
    return max(map(len, lines)) < 400 and digits / len(text) < 0.12 and ascii_share > 0.97 and not generated


if __name__ == "__main__":
    main()
