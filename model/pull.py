"""Downloading a model from the hub into the hub's own cache: what it offers, then the files, resumed and checked.

Knows the network, through huggingface_hub, which brings HF_HOME, HF_TOKEN, proxies and offline mode. Does not know torch.

That library checks no checksum and, since its version 2, throws away what an interrupted download had. So each file goes
to `blobs/DIGEST.incomplete` here, is gone on with after an interruption, and is moved to `blobs/DIGEST` once its digest is
right; the library then only links it. Weights come by plain HTTP ranges, which can be resumed.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers

from model.config import ConfigError
from model.hub import DEFAULT_REVISION, HF_CONFIG, MISTRAL_CONFIG, HubName, choose_files, find
from model.progress import Progress, shown_bytes

ANSWER_S = 20.0  # for the listing; a file may take as long as bytes keep coming
READ_BYTES = 1 << 22
WRITE_BYTES = 1 << 20  # at once: a break loses less, and a slow line shows progress; the library's own is 10 MB
HTTP_RANGE_REFUSED = 416
SPARE_BYTES = 64_000_000  # of a disk that shall not be filled to the brim


class PullError(ConfigError):
    """A model cannot be had from the hub. One line, for people."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """`digest` names the blob: the SHA-256 of a large file, the git blob's SHA-1 of a small one."""

    path: str
    n_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What the hub has under a name, of one commit."""

    name: HubName
    commit: str
    licence: str
    is_gated: bool
    files: tuple[HubFile, ...]

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)

    @property
    def n_bytes_here(self) -> int:
        """Of these files, those that earlier runs have left."""
        return sum(min(file.n_bytes, _size(blob) + _size(_partial(blob))) for file, blob in self._blobs())

    def _blobs(self) -> Iterator[tuple[HubFile, Path]]:
        return ((file, self.name.cache / "blobs" / file.digest) for file in self.files)


def ask(name: HubName) -> Offer:
    """What there is to download. Raises PullError."""
    if not re.match(r"https?://[^/]", constants.ENDPOINT):
        raise PullError(
            f"HF_ENDPOINT: {constants.ENDPOINT!r} is no address of a hub, expected https://... or no such variable"
        )
    with _in_one_line(name):
        info = HfApi().model_info(name.repo, revision=name.revision, files_metadata=True, timeout=ANSWER_S)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    try:
        chosen = choose_files(siblings.keys())
    except ConfigError as error:
        raise PullError(f"{name}: is no model that runs here: {error}") from None
    files = []
    for path in chosen:
        sibling = siblings[path]
        lfs = sibling.lfs
        digest, n_bytes = (lfs.sha256, lfs.size) if lfs is not None else (sibling.blob_id, sibling.size)
        if not _is_digest(digest) or n_bytes is None or not info.sha:
            raise PullError(f"{name}: the hub gives no checksum or size for {path}, expected both")
        files.append(HubFile(path, n_bytes, cast(str, digest)))
    return Offer(name, info.sha or "", _licence(info), bool(info.gated), tuple(files))


def fetch(offer: Offer, *, check_config: Callable[[Path], object], progress: Progress) -> Path:
    """Downloads what is missing and gives the model's folder.

    `check_config` gets the config's path, which comes first, before gigabytes follow; what it raises ends the download.
    Raises PullError; what has been downloaded by then is gone on with next time.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # what it would say is in our own lines
    constants.DOWNLOAD_CHUNK_SIZE = WRITE_BYTES
    name = offer.name
    with _in_one_line(name):
        _require_space(offer)
        (name.cache / "blobs").mkdir(parents=True, exist_ok=True)
        folder = name.cache / "snapshots" / offer.commit
        for file in offer.files:
            with _in_one_line(name, file.path):
                link = _fetch_file(offer, file, progress)
            if file.path in (MISTRAL_CONFIG, HF_CONFIG):
                check_config(link)
        # Last, so that the name never stands for half a model.
        if (revision := name.revision or DEFAULT_REVISION) != offer.commit:
            _write_ref(name.cache / "refs" / revision, offer.commit)
    return folder


def is_offline() -> bool:
    """HF_HUB_OFFLINE, as the hub's library reads it."""
    return constants.is_offline_mode()


def _fetch_file(offer: Offer, file: HubFile, progress: Progress) -> Path:
    """The link in the snapshot. Everything that is already there is left as it is."""
    link, blob = offer.name.cache / "snapshots" / offer.commit / file.path, offer.name.cache / "blobs" / file.digest
    if link.is_file():
        return link
    if not blob.is_file():
        with _held(_partial(blob), file.path) as partial:
            _download(offer, file, partial, progress)
            partial.flush()
            os.fsync(partial.fileno())
            _verify(file, partial, progress)
            _partial(blob).replace(blob)
    hf_hub_download(offer.name.repo, file.path, revision=offer.commit)
    if not link.is_file() or link.resolve() != blob.resolve():
        raise PullError(f"{offer.name}: the hub's listing and its file {file.path} differ, expected {file.digest}")
    return link


def _download(offer: Offer, file: HubFile, partial: BinaryIO, progress: Progress) -> None:
    """Appends to `partial` what it lacks. http_get asks again, from where it stopped, when a connection breaks."""
    if partial.seek(0, os.SEEK_END) > file.n_bytes:
        partial.truncate(0)
    try:
        _append(offer, file, partial, progress)
    except HfHubHTTPError as error:
        if error.response.status_code != HTTP_RANGE_REFUSED or not partial.tell():
            raise
        partial.truncate(0)  # what is here is longer than the file there, so it is no part of it
        _append(offer, file, partial, progress)
    except OSError as error:
        if error.errno is not None or isinstance(error, httpx2.HTTPError):
            raise
        # http_get's own complaint about a length. The digest has the last word, and clears up.


def _append(offer: Offer, file: HubFile, partial: BinaryIO, progress: Progress) -> None:
    here = partial.seek(0, os.SEEK_END)
    progress(here, file.n_bytes, file.path)

    class Bar:
        """What http_get takes for a tqdm class: counts, draws nothing."""

        def __init__(self, *, initial: int = 0, **_: object) -> None:
            self.done = initial

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress(self.done, file.n_bytes, file.path)

    http_get(
        hf_hub_url(offer.name.repo, file.path, revision=offer.commit),
        partial,
        resume_size=here,
        headers={**build_hf_headers(), "Accept-Encoding": "identity"},
        expected_size=file.n_bytes,
        displayed_filename=file.path,
        tqdm_class=cast(Any, Bar),
    )


def _verify(file: HubFile, partial: BinaryIO, progress: Progress) -> None:
    """Raises PullError, and empties the file, when it is not what the hub has promised."""
    header = b"blob %d\0" % file.n_bytes  # as git hashes what it keeps itself
    hasher = hashlib.sha256() if len(file.digest) == 64 else hashlib.sha1(header, usedforsecurity=False)
    partial.seek(0)
    done = 0
    while block := partial.read(READ_BYTES):
        hasher.update(block)
        done += len(block)
        progress(done, file.n_bytes, f"checking {file.path}")
    if done != file.n_bytes or hasher.hexdigest() != file.digest:
        partial.truncate(0)
        raise PullError(
            f"{file.path}: came as {done} bytes with digest {hasher.hexdigest()}, expected {file.n_bytes} bytes with "
            f"{file.digest}; it has been removed, pull again"
        )


@contextmanager
def _held(path: Path, what: str) -> Iterator[BinaryIO]:
    """The partial file, ours alone: two pulls must not both append to it."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PullError(f"{what}: another pull is downloading it") from None
        yield cast(BinaryIO, file)


def _require_space(offer: Offer) -> None:
    needed = offer.n_bytes - offer.n_bytes_here
    place = offer.name.cache
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and needed + SPARE_BYTES > free:
        raise PullError(
            f"{offer.name}: needs {shown_bytes(needed)} on the disk of {place}, which has {shown_bytes(free)} free "
            "(HF_HOME names another place)"
        )


def _write_ref(path: Path, commit: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(commit, encoding="utf-8")
    temporary.replace(path)


def _licence(info: ModelInfo) -> str:
    """From the model card's metadata; the hub repeats it in a tag."""
    card: dict[str, Any] = info.card_data.to_dict() if info.card_data is not None else {}
    licence = card.get("license_name") or card.get("license")
    if not licence:
        tags = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
        licence = tags[0] if tags else None
    text = ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence or "not stated")
    return text + (f" ({card['license_link']})" if card.get("license_link") else "")


@contextmanager
def _in_one_line(name: HubName, path: str | None = None) -> Iterator[None]:
    """Whatever the hub's library, the network or the disk raises, as a PullError that says what to do."""
    what = str(name) if path is None else f"{name}: {path}"
    try:
        yield
    except PullError:
        raise
    except OfflineModeIsEnabled:
        raise PullError(f"{what}: cannot be downloaded offline (HF_HUB_OFFLINE is set)") from None
    except HfHubHTTPError as error:
        raise PullError(_refusal(name, what, error)) from None
    except httpx2.ProxyError as error:
        raise PullError(f"{what}: the proxy refused ({_flat(error)}), check HTTPS_PROXY") from None
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise PullError(_unreachable(name, what, error)) from None
    except LocalEntryNotFoundError as error:
        cause = error.__cause__ or error
        if isinstance(cause, httpx2.TransportError):
            raise PullError(_unreachable(name, what, cause)) from None
        raise PullError(f"{what}: {constants.ENDPOINT} does not answer like a model hub ({_flat(cause)})") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PullError(
                f"{what}: the disk is full, and what has come so far is kept; pull again to go on"
            ) from None
        where = f" {error.filename}" if error.filename else ""
        raise PullError(f"{what}: cannot be stored{where} ({error.strerror or _flat(error)})") from None
    except ValueError as error:  # an answer that is not the hub's: not JSON, without a key
        raise PullError(f"{what}: {constants.ENDPOINT} does not answer like a model hub ({_flat(error)})") from None


def _unreachable(name: HubName, what: str, error: Exception) -> str:
    known = find(name)  # perhaps nothing has to be downloaded at all
    if known is not None and not known.missing:
        help_ = f"a complete copy is here: {known.folder}"
    else:
        help_ = (
            "HF_ENDPOINT names another hub, HTTPS_PROXY a proxy, and a model's folder copied here by hand is used as "
            "--model PATH"
        )
    return f"{what}: {constants.ENDPOINT} cannot be reached ({_flat(error)}); {help_}"


def _refusal(name: HubName, what: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return f"{name}: is gated: ask for access on {constants.ENDPOINT}/{name.repo}, then set HF_TOKEN to a token of yours"
    if isinstance(error, RevisionNotFoundError):
        return f"{name}: has no revision {name.revision or DEFAULT_REVISION}"
    if status == 401:
        return f"{name}: is not on {constants.ENDPOINT}, or private: then HF_TOKEN must hold a token that may read it"
    if status == 403:
        return f"{what}: access was refused ({_flat(error.server_message or '403')}); may your HF_TOKEN read it?"
    if status == 404:
        return f"{what}: is not on {constants.ENDPOINT}"
    return f"{what}: {constants.ENDPOINT} answered with status {status}"


def _flat(value: object) -> str:
    return " ".join(str(value).split())[:200] or type(value).__name__


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) in (40, 64) and set(value) <= set("0123456789abcdef")


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
