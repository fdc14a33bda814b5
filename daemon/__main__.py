"""The daemon's process: one lock, one Unix socket (0600), one model.

    python -I -m daemon --model bundled --socket PATH --idle-minutes 30

A second daemon for the same socket exits 0 at once: the first one serves. Knows: sockets, locks, signals. Does not know: requests.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch
import uvicorn

from cache.chain import Chain
from cache.disk import DiskTier
from daemon.api import Service, application
from daemon.budgets import DISK_BYTES, STATES, memory_budget, snapshot_format
from daemon.completion import Engine
from daemon.keeper import Keeper
from daemon.profile import read_profile
from daemon.protocol import SocketError, socket_path
from model.checkpoint import load_model
from model.digest import cache_folder
from model.machine import default_threads
from model.precision import PRECISIONS
from model.snapshot import SNAPSHOT_FORMATS

AUTO = "auto"
MAX_CONTEXT_TOKENS = 262_144
SOCKET_POLL_S = 2.0
STOP_S = 15.0  # for the model's thread to end; it writes what the next daemon would be sorry to lose
FAILURE_GRACE_S = 15.0  # time enough for the front end that started it to read why
log = logging.getLogger("codestral_lsp.daemon")


def main() -> None:
    args = arguments()
    logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        path = args.socket or socket_path(args.model, args.precision)
        lock = acquire(path.with_suffix(".lock"))
        if lock is None:
            print(f"{path}: another daemon is serving", file=sys.stderr)
            return
        listener = listen(path)
    except SocketError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    torch.set_num_threads(args.threads)
    identity = path.stat().st_ino
    # uvicorn ends in an orderly way and then raises the signal again; it must not end us before the socket is gone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if asyncio.run(serve(args, listener, path, identity)) is not None:
            sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        if is_ours(path, identity):
            path.unlink()
        lock.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m daemon", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="bundled", help="'bundled', a pulled ORG/NAME, or the path of a folder or .gguf file"
    )
    parser.add_argument(
        "--precision",
        default=AUTO,
        choices=[AUTO, *PRECISIONS],
        help="of the weights; auto is by this machine's memory",
    )
    parser.add_argument("--socket", type=Path, default=None)
    parser.add_argument("--idle-minutes", type=float, default=30.0)
    parser.add_argument(
        "--store-bytes", type=int, default=None, help="memory for kept states; the default is a share of this machine's"
    )
    parser.add_argument(
        "--disk-bytes",
        type=int,
        default=DISK_BYTES,
        help="disk for kept states, and never over a tenth of what is free; 0: none",
    )
    parser.add_argument(
        "--snapshots",
        default=AUTO,
        choices=[AUTO, *SNAPSHOT_FORMATS],
        help="numbers of a state on disk; auto: fp32, which is exact, where a state is small, else fp16",
    )
    parser.add_argument(
        "--threads", type=int, default=default_threads(), help="of the model; the default leaves one core to the editor"
    )
    parser.add_argument("--foreground", action="store_true", help="end at once when the model cannot be loaded")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser.parse_args()


async def serve(args: argparse.Namespace, listener: socket.socket, path: Path, identity: int) -> str | None:
    """Until it is told to stop; returns why the model could not be loaded, in one line, or None."""
    server = uvicorn.Server(
        uvicorn.Config(lambda: None, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    )

    def stop() -> None:
        server.should_exit = True

    service = Service(
        lambda: load_engine(args),
        max_context_tokens=MAX_CONTEXT_TOKENS,
        idle_timeout_s=60 * args.idle_minutes,
        failure_grace_s=0.0 if args.foreground else FAILURE_GRACE_S,
        stop=stop,
        asked_model=args.model,
        asked_precision=args.precision,
    )
    server.config.app = application(service)
    watches = [service.start(), service.watch_idle(), watch_socket(path, identity, stop)]
    tasks = [asyncio.create_task(watch) for watch in watches]
    log.info("loading model %s", args.model)
    await server.serve(sockets=[listener])
    for task in tasks:
        task.cancel()
    if service.worker is not None:
        service.worker.stop()
        await asyncio.to_thread(service.worker.join, STOP_S)
    return service.error


def load_engine(args: argparse.Namespace) -> Engine:
    """The model, asked in the way that `calibrate` found best for it, if it has run."""
    model = load_model(args.model, precision=None if args.precision == AUTO else args.precision)
    config = model.network.config

    def keeper_of(root: Chain) -> Keeper | None:
        if args.disk_bytes <= 0:
            return None
        folder = cache_folder() / STATES
        tier = DiskTier(folder, fingerprint=root.root.hex(), root=root.root, budget_bytes=args.disk_bytes)
        return Keeper(
            tier,
            folder,
            config=config,
            snapshot_format=snapshot_format(config) if args.snapshots == AUTO else args.snapshots,
        )

    budget = memory_budget(config) if args.store_bytes is None else args.store_bytes
    profile = read_profile(model.digest)
    return Engine(model, store_budget_bytes=budget, profile=profile, keeper_of=keeper_of)


def acquire(path: Path) -> TextIO | None:
    """The lock file, held as long as it is open; None when another process holds it."""
    try:
        file = path.open("a")
    except OSError as error:
        raise SocketError(f"{path}: cannot be opened ({error.strerror}), expected a folder of your own") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def listen(path: Path) -> socket.socket:
    """A listening socket with mode 0600. A socket left behind by a dead daemon is replaced; anything else in its place is refused."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        info = None
    if info is not None:
        if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.getuid():
            raise SocketError(
                f"{path}: is in the way and not a socket of yours, expected nothing or a dead daemon's socket"
            )
        if answers(path):
            raise SocketError(f"{path}: is in use by something that is not codestral-lsp")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise SocketError(
            f"{path}: cannot listen ({error.strerror or error}), expected a path of at most 107 bytes"
        ) from None
    finally:
        os.umask(old)
    listener.listen(64)
    return listener


async def watch_socket(path: Path, identity: int, stop: Callable[[], None]) -> None:
    """Ends a daemon that nobody can reach any more, since it would keep its lock and so keep others from serving."""
    while is_ours(path, identity):
        await asyncio.sleep(SOCKET_POLL_S)
    log.warning("%s is gone or another's, stopping", path)
    stop()


def is_ours(path: Path, identity: int) -> bool:
    """Whether the socket file is still the one that was made; `identity` is its inode."""
    try:
        return path.lstat().st_ino == identity
    except FileNotFoundError:
        return False


def answers(path: Path) -> bool:
    """Whether some process accepts connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
