"""The daemon as a process: its socket, its lock, its routes, cancelling, idling, dying. With the bundled model over real HTTP."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

WAIT_S = 60.0
TEXT = "import os\n\n\ndef size_of(path):\n    return os.path.getsize(path)\n\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n"


@contextmanager
def daemon(folder: Path, *flags: str, name: str = "d.sock") -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    path = folder / name
    command = [sys.executable, "-I", "-m", "daemon", "--socket", str(path), *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    client = httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://daemon", timeout=WAIT_S)
    try:
        yield process, client
    finally:
        client.close()
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-") as path:  # a socket's path is at most 107 bytes long
        yield Path(path)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with daemon(folder) as (_, client):
        wait_ready(client)
        yield client


def wait_ready(client: httpx.Client) -> dict:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            health = client.get("/healthz").json()
        except httpx.TransportError:
            health = {"state": "starting"}
        if health["state"] not in ("starting", "loading"):
            return health
        time.sleep(0.05)  # polling for another process, bounded by WAIT_S
    raise AssertionError("the daemon did not become ready")


def documents(n: int, salt: str = "") -> list[dict]:
    return [{"path": f"src/file{i}.py", "text": f"# {salt}{i}\n{TEXT}"} for i in range(n)]


def read(client: httpx.Client, files: list[dict]) -> dict:
    status = client.post("/v1/contexts", json={"documents": files}).json()
    while status["state"] != "ready":
        status = client.get(f"/v1/contexts/{status['id']}", params={"wait_s": 5}).json()
    return status


def complete(client: httpx.Client, **request: object) -> dict:
    response = client.post("/v1/fim/completions", json=request)
    assert response.status_code == 200, response.text
    return response.json()


def test_health_names_the_service_and_the_model(client: httpx.Client) -> None:
    health = client.get("/healthz").json()
    assert (health["service"], health["state"], health["model"]["id"]) == ("codestral-lsp", "ready", "bundled")
    assert (health["asked_model"], health["asked_precision"], health["reading"]) == ("bundled", "auto", None)
    assert client.get("/v1/models").json()["data"] == [health["model"]]


def test_only_the_owner_can_open_the_socket(client: httpx.Client, folder: Path) -> None:
    info = (folder / "d.sock").stat()
    assert stat.S_IMODE(info.st_mode) == 0o600


def test_a_second_window_feeds_no_token_of_the_repository_again(client: httpx.Client) -> None:
    first = read(client, documents(5, "window"))
    second = read(client, documents(5, "window"))
    assert first["tokens_fed"] > 0 and first["id"] == second["id"]
    assert (second["tokens_fed"], second["tokens_reused"]) == (0, second["tokens"])


def test_a_changed_last_file_feeds_only_itself(client: httpx.Client) -> None:
    files = documents(6, "changed")
    whole = read(client, files)
    changed = read(client, [*files[:-1], files[-1] | {"text": TEXT * 2}])
    assert changed["id"] != whole["id"]
    assert 0 < changed["tokens_fed"] < changed["tokens"] / 2


def test_a_typed_word_reuses_nearly_everything(client: httpx.Client) -> None:
    context = read(client, documents(40, "typed"))
    above = "import os\n\n\ndef total(paths):\n    "
    reports = [
        complete(client, prompt=above + "return sum("[:n], context=context["id"], path="src/new.py", document="a")[
            "report"
        ]
        for n in range(1, 12)
    ]
    assert reports[0]["context_tokens"] == context["tokens"] - 1  # all but <s>
    assert all(report["tokens_fed"] <= 16 for report in reports[1:])


def test_the_answer_does_not_depend_on_what_is_kept(client: httpx.Client, folder: Path) -> None:
    request = {"prompt": "import os\n\n\ndef total(paths):\n    return os.pa", "path": "src/new.py"}
    warm = read(client, documents(4, "warm"))
    first, again = (complete(client, **request, context=warm["id"]) for _ in range(2))
    with daemon(folder, "--store-bytes", "0", "--disk-bytes", "0", name="cold.sock") as (_, cold):
        wait_ready(cold)
        context = read(cold, documents(4, "warm"))
        forgetful = complete(cold, **request, context=context["id"])
    assert first["choices"] == again["choices"] == forgetful["choices"]
    assert again["report"]["tokens_fed"] == 0 < forgetful["report"]["tokens_fed"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/fim/completions", b"{", 400, "CompletionRequest: "),
        ("POST", "/v1/fim/completions", b'{"prompt": 5}', 400, "Expected `str`, got `int` - at `$.prompt`"),
        ("POST", "/v1/fim/completions", b"{}", 400, "missing required field `prompt`"),
        ("POST", "/v1/fim/completions", b'{"prompt": "a", "n": 0}', 400, "n is 0, expected 1 to 5"),
        ("POST", "/v1/fim/completions", b'{"prompt": "a", "max_lines": 0}', 400, "max_lines is 0, expected 1 to 100"),
        ("POST", "/v1/fim/completions", b'{"prompt": "a", "indent": "x"}', 400, "indent is 'x', expected whitespace"),
        ("POST", "/v1/fim/completions", b'{"prompt": "a", "temperature": 0.7}', 400, "temperature is 0.7, expected 0"),
        (
            "POST",
            "/v1/fim/completions",
            b'{"prompt": "a", "max_tokens": 0}',
            400,
            "max_tokens is 0, expected 1 to 4096",
        ),
        ("POST", "/v1/fim/completions", b'{"prompt": "a", "context": "beef"}', 404, "context beef is unknown here"),
        ("POST", "/v1/contexts", b'{"documents": [{"path": "a"}]}', 400, "missing required field `text`"),
        ("GET", "/v1/contexts/beef", b"", 404, "context beef is unknown here"),
        ("GET", "/v1/contexts/beef?wait_s=soon", b"", 400, "wait_s is 'soon', expected seconds"),
    ],
)
def test_bad_requests_get_one_line(
    client: httpx.Client, method: str, path: str, body: bytes, status: int, message: str
) -> None:
    response = client.request(method, path, content=body)
    error = response.json()["error"]["message"]
    assert (response.status_code, "\n" in error) == (status, False)
    assert message in error


def test_a_client_that_goes_away_stops_the_model(client: httpx.Client, folder: Path) -> None:
    slow = {"prompt": "x = [", "head": TEXT * 2000, "path": "slow.py"}
    before = client.get("/healthz").json()["tokens_fed"]
    transport = httpx.HTTPTransport(uds=str(folder / "d.sock"))
    with (
        httpx.Client(transport=transport, base_url="http://daemon", timeout=0.3) as leaving,
        pytest.raises(httpx.ReadTimeout),
    ):
        leaving.post("/v1/fim/completions", json=slow)
    complete(client, prompt="import os\nos.pa")  # is answered after what is left of the slow one
    fed = client.get("/healthz").json()["tokens_fed"] - before
    assert fed < len(TEXT) * 2000 / 10  # a token is not as long as ten characters


def test_a_newer_request_for_a_document_ends_the_older(client: httpx.Client, folder: Path) -> None:
    answers: list[dict] = []

    def slow() -> None:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(folder / "d.sock")), base_url="http://daemon", timeout=WAIT_S
        ) as other:
            answers.append(complete(other, prompt="x = [", head=TEXT * 10_000, document="same"))

    thread = threading.Thread(target=slow)
    thread.start()
    deadline = time.monotonic() + WAIT_S
    while not answers and time.monotonic() < deadline:
        complete(client, prompt="import os\nos.pa", document="same")  # one of these comes after the slow one
    thread.join(WAIT_S)
    assert answers[0]["report"]["stopped_by"] == "cancelled"
    assert answers[0]["choices"][0]["message"]["content"] == ""


def test_a_second_daemon_leaves_the_first_alone(client: httpx.Client, folder: Path) -> None:
    with daemon(folder) as (process, _):
        _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (0, f"{folder}/d.sock: another daemon is serving\n")
    assert client.get("/healthz").json()["state"] == "ready"


def test_a_dead_daemons_socket_is_replaced(folder: Path) -> None:
    with daemon(folder, name="dead.sock") as (process, client):
        wait_ready(client)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / "dead.sock").exists()
    with daemon(folder, name="dead.sock") as (_, client):
        assert wait_ready(client)["state"] == "ready"


def test_a_socket_of_something_else_is_refused(folder: Path) -> None:
    path = folder / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with daemon(folder, name="other.sock") as (process, _):
            _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (1, f"{path}: is in use by something that is not codestral-lsp\n")


def test_a_file_in_the_way_is_refused_and_kept(folder: Path) -> None:
    path = folder / "file.sock"
    path.write_text("precious")
    with daemon(folder, name="file.sock") as (process, _):
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1 and errors.count("\n") == 1 and errors.startswith(f"{path}: is in the way")
    assert path.read_text() == "precious"


def test_shutdown_removes_the_socket(folder: Path) -> None:
    with daemon(folder, name="stop.sock") as (process, client):
        wait_ready(client)
        client.post("/v1/shutdown")
        assert process.wait(WAIT_S) == 0
    assert not (folder / "stop.sock").exists()


def test_an_idle_daemon_ends(folder: Path) -> None:
    with daemon(folder, "--idle-minutes", "0.02", name="idle.sock") as (process, _):
        assert process.wait(WAIT_S) == 0


def test_a_signal_removes_the_socket(folder: Path) -> None:
    with daemon(folder, name="term.sock") as (process, client):
        wait_ready(client)
        process.terminate()
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert not (folder / "term.sock").exists() and "Traceback" not in errors


def test_in_the_foreground_a_missing_model_is_the_end(folder: Path) -> None:
    with daemon(folder, "--foreground", "--model", "/nope", name="fore.sock") as (process, _):
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1 and not (folder / "fore.sock").exists()
    assert "/nope: no such folder" in errors and "Traceback" not in errors


def test_a_daemon_whose_socket_was_deleted_makes_room(folder: Path) -> None:
    with daemon(folder, name="gone.sock") as (process, client):
        wait_ready(client)
        (folder / "gone.sock").unlink()
        assert process.wait(WAIT_S) == 0
    with daemon(folder, name="gone.sock") as (_, client):
        assert wait_ready(client)["state"] == "ready"


def test_a_model_that_cannot_be_loaded_is_said_in_one_line(folder: Path) -> None:
    with daemon(folder, "--model", str(folder / "nothing"), name="bad.sock") as (_, client):
        health = wait_ready(client)
    assert health["state"] == "failed"
    assert health["error"].startswith(f"{folder}/nothing: no such folder or file, expected 'bundled', a folder ")
    assert "\n" not in health["error"]
    assert os.path.exists(folder)
