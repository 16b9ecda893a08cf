"""The gate, on a running demo: what is exposed is on a list, and each known hole of the framework is closed."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
from demo_server import DemoServer
from PIL import Image

from app.demo import gate, incoming
from app.demo.answers import HEADERS
from app.demo.endpoints import PUBLIC
from app.demo.intake import UploadError
from app.demo.worker import BUSY

#: Every function that can be asked, and whether it is offered to programs; a new one must be put here on purpose.
ENDPOINTS = {
    "about": "public",
    "compare": "public",
    "compare_batch": "public",
    "page_batch": "private",
    "page_example": "private",
    "page_forget": "private",
    "page_look": "private",
    "page_redraw": "private",
    "page_switch": "private",
}


@pytest.fixture
def web(demo: DemoServer):
    with httpx.Client(base_url=demo.url, timeout=60) as client:
        yield client


def _picture(**saving: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((60, 80, 3), 120, np.uint8)).save(file, **({"format": "JPEG"} | saving))
    return file.getvalue()


def _upload(web: httpx.Client, content: bytes, name: str = "x.jpg") -> str:
    answer = web.post("/gradio_api/upload", files={"files": (name, content)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()[0])


def _ask(web: httpx.Client, name: str, data: list[object]) -> str:
    """Ask a function the way programs do; returns the last event."""
    answer = web.post(f"/gradio_api/call/{name}", json={"data": data})
    assert answer.status_code == 200, answer.text
    return web.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text


def _file(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_every_function_that_can_be_asked_is_on_the_list(web: httpx.Client) -> None:
    found = {entry["api_name"]: entry["api_visibility"] for entry in web.get("/config").json()["dependencies"]}
    assert found == ENDPOINTS
    assert {name for name, kind in ENDPOINTS.items() if kind == "public"} == set(PUBLIC)
    assert {name.removeprefix("/") for name in web.get("/gradio_api/info").json()["named_endpoints"]} == set(PUBLIC)


def test_every_address_that_gradio_has_and_is_not_on_the_list_is_closed(web: httpx.Client) -> None:
    import gradio
    from fastapi.routing import APIRoute

    with gradio.Blocks() as blocks:
        gradio.Markdown("x")
    app = gradio.routes.App.create_app(blocks)
    nested = [route.original_router.routes for route in app.routes if hasattr(route, "original_router")]
    assert nested
    closed = 0
    for route in (*app.routes, *(route for routes in nested for route in routes)):
        if not isinstance(route, APIRoute):
            continue
        path = route.path
        for part in ("{path:path}", "{path_or_url:path}", "{url_path:path}"):
            path = path.replace(part, "x")
        while "{" in path:
            path = path[: path.index("{")] + "x" + path[path.index("}") + 1 :]
        for method in route.methods & {"GET", "POST"}:
            listed = (gate._READ if method == "GET" else gate._WRITE).fullmatch(path)
            if not listed:
                closed += 1
                assert web.request(method, path).status_code == 404, f"{method} {path}"
    assert closed > 20  # as proxy, stream, deep_link, component_server, monitoring, vibe-edit


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://example.com/x",
        "/gradio_api/component_server",
        "/gradio_api/deep_link",
        "/gradio_api/run/compare",
        "/gradio_api/api/compare",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/gradio_api/vibe-code",
        "/static//etc/passwd",
        "/static/..%2f..%2f..%2fetc/passwd",
        "/assets//etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/static/C:/windows/win.ini",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../etc/passwd",
        "/gradio_api/file=app/gradio_demo.py",
        "/gradio_api/file=https://example.com/x.png",
        "/gradio_api/file=http://127.0.0.1:22/",
        "/gradio_api/file=//example.com/x",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file/etc/passwd",
    ],
)
def test_known_holes_are_closed(web: httpx.Client, path: str) -> None:
    for method in ("GET", "POST"):
        answer = web.request(method, path, follow_redirects=False)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
        assert answer.json()["detail"] in (gate.NOTHING_HERE, "There is no such file.")
        assert "location" not in answer.headers


@pytest.mark.parametrize(
    "named",
    [
        _file("/etc/passwd"),
        _file("http://127.0.0.1:22/x.png"),
        _file("https://example.com/x.png"),
        _file("app/gradio_demo.py"),
        {"url": "http://127.0.0.1:22/x.png", "meta": {"_type": "gradio.FileData"}},
        [[_file("/etc/passwd")]],
    ],
)
def test_a_question_that_names_another_file_than_an_upload_is_refused(web: httpx.Client, named: object) -> None:
    for path, body in (
        ("/gradio_api/call/compare", {"data": [named]}),
        ("/gradio_api/queue/join", {"data": [named], "fn_index": 0, "session_hash": "abc"}),
    ):
        answer = web.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["detail"] == gate.FOREIGN_FILE


@pytest.mark.parametrize(
    "kind",
    ["Application/JSON", "application/json ;x", "application/json\t;", "application/vnd.x+json", "text/plain", ""],
)
def test_a_question_of_another_type_is_refused_whatever_it_says(web: httpx.Client, kind: str) -> None:
    for path in ("/gradio_api/call/compare", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"):
        body = json.dumps({"data": [_file("http://127.0.0.1:22/x.png")]})
        headers = {"content-type": kind} if kind else {}
        assert web.post(path, content=body, headers=headers).status_code == 415, path


def test_odd_questions_get_a_sentence(web: httpx.Client) -> None:
    surrogate = web.post(
        "/gradio_api/call/compare",
        content=b'{"data": [{"path": "/x\\ud800"}]}',
        headers={"content-type": "application/json"},
    )
    assert surrogate.status_code == 400
    assert web.post("/gradio_api/call/nothing", json={"data": []}).status_code == 404
    for name, data in (("compare", []), ("compare_batch", [{}]), ("page_example", ["grad-cam", 0.5, True, True])):
        assert "null" not in _ask(web, name, data).split("data:")[-1]


def test_the_named_form_of_a_question_is_answered_too(web: httpx.Client) -> None:
    path = _upload(web, _picture())
    answer = web.post("/gradio_api/call/v2/compare", json={"picture": _file(path)})
    assert answer.status_code == 200
    text = web.get(f"/gradio_api/call/compare/{answer.json()['event_id']}").text
    assert "top_class" in text
    foreign = web.post("/gradio_api/call/v2/compare", json={"picture": _file("/etc/passwd")})
    assert foreign.status_code == 400


def test_an_upload_over_the_limit_is_refused_as_it_comes(web: httpx.Client) -> None:
    def endless():
        yield b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
        for _ in range(incoming.MAX_UPLOAD // 2**20 + 8):
            yield b"x" * 2**20

    headers = {"content-type": "multipart/form-data; boundary=b"}
    try:
        answer = web.post("/gradio_api/upload", headers=headers, content=endless())
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # it was hung up on, which is as good
    assert web.get("/config").status_code == 200


def test_bodies_are_limited_and_must_be_json(web: httpx.Client) -> None:
    large = web.post("/gradio_api/call/compare", json={"data": ["x" * (gate.MAX_QUESTION + 1)]})
    assert large.status_code == 413
    headers = {"content-type": "application/json"}
    assert web.post("/gradio_api/call/compare", content="{", headers=headers).status_code == 400
    deep = "[" * 100_000
    assert web.post("/gradio_api/call/compare", content=deep, headers=headers).status_code == 400


def test_a_file_over_the_limit_is_refused_while_it_comes_in(web: httpx.Client) -> None:
    answer = web.post("/gradio_api/upload", files={"files": ("x.png", b"\0" * (21 * 2**20))})
    assert answer.status_code == 413


def test_an_upload_comes_back_as_a_fresh_picture_without_what_else_was_in_it(web: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    content = _picture(exif=exif) + b"<script>alert(1)</script>"
    assert b"secret place" in content
    answer = web.get(f"/gradio_api/file={_upload(web, content)}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert "sandbox" in answer.headers["content-security-policy"]
    found = Image.open(io.BytesIO(answer.content))
    assert found.size == (80, 60)
    assert not found.getexif()
    assert b"secret" not in answer.content
    assert b"script" not in answer.content


@pytest.mark.parametrize("name", ["x.svg", "x.html", "x.png"])
def test_an_upload_that_is_no_picture_never_comes_back(web: httpx.Client, name: str) -> None:
    path = _upload(web, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", name)
    answer = web.get(f"/gradio_api/file={path}")
    assert answer.status_code == 415
    assert "svg" not in answer.text


def test_no_answer_names_a_path_or_a_line_of_code(web: httpx.Client) -> None:
    asked = [
        _ask(web, "compare", [_file(_upload(web, b"no picture"))]),
        _ask(web, "compare", [None]),
        _ask(web, "compare", ["x"]),
        _ask(web, "compare_batch", [[_file(_upload(web, b"PK\x03\x04 cut"))]]),
        _ask(web, "page_redraw", [None, "lime", 0.5]),
        _ask(web, "page_look", [_file(_upload(web, _picture())), "grad-cam", "much", True, True]),
        _ask(web, "page_look", [_file(_upload(web, _picture())), "grad-cam", 0.5, "x", {"y": 1}]),
    ]
    asked += [web.get("/config").text, web.get("/").text, web.get("/gradio_api/info").text, _upload(web, _picture())]
    assert "/files---" in asked[-1]
    for text in asked:
        for secret in ("Traceback", str(Path.home()), tempfile.gettempdir(), "gradio_demo", "site-packages"):
            assert secret not in text, text


def test_every_answer_has_the_headers(web: httpx.Client) -> None:
    for answer in (
        web.get("/"),
        web.get("/config"),
        web.get("/nothing"),
        web.post("/gradio_api/call/nothing", json={}),
    ):
        for name in HEADERS:
            assert name in answer.headers, f"{answer.url}: {name}"
        assert "frame-ancestors" in answer.headers["content-security-policy"]


def test_it_listens_on_the_loopback_address_alone(demo: DemoServer) -> None:
    import psutil

    places = {
        connection.laddr.ip
        for connection in psutil.Process(demo.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert places == {"127.0.0.1"}


def test_with_auth_nothing_is_answered_without_it(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    server = DemoServer(tmp_path, "--auth", f"ali:{password}")
    try:
        with httpx.Client(base_url=server.url, timeout=60) as web, httpx.Client(base_url=server.url) as stranger:
            assert "password" not in server.output()
            assert web.get("/config").status_code == 401
            assert web.get("/gradio_api/info").status_code == 401
            assert web.post("/gradio_api/call/about", json={"data": []}).status_code == 401
            assert web.post("/gradio_api/upload", files={"files": ("x.png", b"x")}).status_code == 401
            assert web.post("/login", data={"username": "ali", "password": "wrong"}).status_code == 400
            assert web.post("/login", data={"username": "ali", "password": "open sesame"}).status_code == 200
            assert web.post("/gradio_api/call/about", json={"data": []}).status_code == 200
            path = _upload(web, _picture())
            assert web.get(f"/gradio_api/file={path}").status_code == 200
            missing = str(Path(path).with_name("none.jpg"))
            for name in (path, missing):  # who has not logged in does not learn which files there are
                answer = stranger.get(f"/gradio_api/file={name}")
                assert (answer.status_code, answer.json()) == (401, {"detail": gate.NO_LOGIN})
            guesses = [
                stranger.post("/login", data={"username": "ali", "password": "x"}, headers={name: f"10.0.0.{place}"})
                for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP")
                for place in range(12)
            ]
            assert [guess.status_code for guess in guesses] == [400] * 8 + [429] * 28
    finally:
        server.end()


def _gate(folder: Path, uploads: set[str], status: int = 200, login: int = 200) -> httpx.AsyncClient:
    async def app(scope, receive, send) -> None:
        said = login if scope["path"] == "/gradio_api/login_check" else status
        await send({"type": "http.response.start", "status": said, "headers": []})
        await send({"type": "http.response.body", "body": b"from gradio"})

    inner = gate.Gate(app, folder=folder, uploads=lambda: uploads)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=inner), base_url="http://demo")


@pytest.mark.anyio
@pytest.mark.parametrize("login", [401, 404, 500])
async def test_a_file_needs_a_log_in_that_gradio_says_is_there(tmp_path: Path, login: int) -> None:
    (tmp_path / "x.jpg").write_bytes(_picture())
    (tmp_path / "answer.csv").write_text("answer")
    async with _gate(tmp_path, {str(tmp_path / "x.jpg")}, login=login) as web:
        for name in ("x.jpg", "answer.csv"):
            assert (await web.get(f"/gradio_api/file={tmp_path / name}")).status_code == 401
        assert (await web.head(f"/gradio_api/file={tmp_path / 'x.jpg'}")).status_code == 401
    async with _gate(tmp_path, {str(tmp_path / "x.jpg")}) as web:
        assert (await web.get(f"/gradio_api/file={tmp_path / 'x.jpg'}")).headers["content-type"] == "image/webp"
        assert (await web.get(f"/gradio_api/file={tmp_path / 'answer.csv'}")).text == "from gradio"


@pytest.mark.anyio
async def test_uploads_are_shown_one_at_a_time_and_so_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, most = 0, 0

    def slowly(path: Path) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.02)
        now -= 1
        if path.name == "bad.jpg":
            raise UploadError("no picture")
        return b"fresh"

    monkeypatch.setattr(gate, "fresh_picture", slowly)
    monkeypatch.setattr(gate, "MAX_SHOWN", 8)
    paths = [str(tmp_path / "x.jpg"), str(tmp_path / "bad.jpg")]
    async with _gate(tmp_path, set(paths)) as web:
        for _ in range(2):  # whoever was answered makes room
            asked = [web.get(f"/gradio_api/file={paths[place % 2]}") for place in range(20)]
            answers = await asyncio.gather(*asked)
            assert most == 1
            counts = Counter(answer.status_code for answer in answers)
            assert counts == {200: 4, 415: 4, 503: 12}
        assert {answer.json()["detail"] for answer in answers if answer.status_code == 503} == {BUSY}


@pytest.mark.anyio
async def test_a_question_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless():
        yield b"{"
        await asyncio.sleep(60)

    monkeypatch.setattr(gate, "PAUSE_SECONDS", 0.05)
    headers = {"content-type": "application/json"}
    async with _gate(tmp_path, set()) as web:
        for path in ("/gradio_api/call/compare", "/login"):
            assert (await web.post(path, content=endless(), headers=headers)).status_code == 408


@pytest.mark.anyio
async def test_log_ins_are_counted_for_each_address_and_forgotten_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"wrong"})

    inner = gate.Gate(app, folder=tmp_path, uploads=set)

    async def tries(address: str, count: int) -> list[int]:
        transport = httpx.ASGITransport(app=inner, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://demo") as web:
            return [(await web.post("/login", data={"password": "x"})).status_code for _ in range(count)]

    assert await tries("10.0.0.1", 12) == [400] * 10 + [429] * 2
    assert await tries("10.0.0.2", 1) == [400]
    assert sorted(inner._logins) == ["10.0.0.1", "10.0.0.2"]
    later = time.monotonic() + gate._MINUTE + 1
    monkeypatch.setattr(gate.time, "monotonic", lambda: later)
    assert await tries("10.0.0.3", 11) == [400] * 10 + [429]
    assert list(inner._logins) == ["10.0.0.3"]


@pytest.mark.anyio
async def test_a_full_queue_is_said_in_the_demos_own_words(tmp_path: Path) -> None:
    async with _gate(tmp_path, set(), status=503) as web:
        answer = await web.post("/gradio_api/queue/join", json={"data": []})
        assert answer.status_code == 503
        assert answer.json() == {"detail": BUSY}
        assert answer.headers["retry-after"]


@pytest.mark.anyio
async def test_an_upload_over_the_limit_is_refused_as_it_is_announced(tmp_path: Path) -> None:
    async with _gate(tmp_path, set()) as web:
        headers = {"content-length": str(incoming.MAX_UPLOAD + 1)}
        answer = await web.post("/gradio_api/upload", headers=headers, content=b"x")
        assert answer.status_code == 413


@pytest.mark.anyio
async def test_uploads_are_refused_while_the_disk_share_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_bytes(b"x" * 100)
    async with _gate(tmp_path, set()) as web:
        assert (await web.post("/gradio_api/upload", content=b"x")).text == "from gradio"
        monkeypatch.setattr(incoming, "MAX_STORED", 50)
        answer = await web.post("/gradio_api/upload", content=b"x")
        assert answer.status_code == 503
        assert json.loads(answer.text)["detail"] == incoming.DISK_SHARE


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_web_sockets_are_closed_and_forwarded_headers_are_not_believed(tmp_path: Path) -> None:
    seen: list[dict] = []

    async def app(scope, receive, send) -> None:
        seen.append(scope)

    said: list[dict] = []

    async def send(message) -> None:
        said.append(message)

    await gate.Gate(app, folder=tmp_path, uploads=set)({"type": "websocket", "path": "/"}, None, send)
    assert said == [{"type": "websocket.close", "code": 1008}]
    headers = [(b"x-forwarded-host", b"evil.example"), (b"accept", b"*/*")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""}
    for behind in (False, True):
        await gate.Gate(app, folder=tmp_path, uploads=set, behind_proxy=behind)(scope, None, send)
    assert [len(found["headers"]) for found in seen] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "with space é"])
def test_no_path_is_named_where_the_folder_is_a_link_or_has_odd_letters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / name, tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    monkeypatch.setenv("TMPDIR", str(link))
    server = DemoServer(tmp_path)
    try:
        with httpx.Client(base_url=server.url, timeout=60) as web:
            path = _upload(web, _picture())
            texts = [path, web.get("/config").text, _ask(web, "compare_batch", [[_file(path)]])]
            texts.append(_ask(web, "page_look", [_file(path), "grad-cam", 0.5, True, True]))
            assert web.get(f"/gradio_api/file={path}").status_code == 200
            for text in texts:
                assert "concept-tuning-demo-" not in text
                assert tmp_path.name not in text
    finally:
        server.end()
