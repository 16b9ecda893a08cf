"""The Gradio demo: vanilla against concept-tuned predictions, on this machine or by a link.

python app/gradio_demo.py [--run-a RUN --run-b RUN] [--share] [--auth USER:PASSWORD_FILE] [--port N]

Behind a proxy of your own, set FORWARDED_ALLOW_IPS to the address from which it connects, and log-ins are counted for
each visitor; otherwise all that come through it, or through the tunnel of --share, have ten a minute together.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# `python app/gradio_demo.py` puts this file's folder on the path, not the repository's.
sys.path.insert(0, str(ROOT))

from concept_tuning.errors import ConfigError, StudioError  # noqa: E402

DEMO = ROOT / "assets" / "demo"
_RUN_A, _RUN_B = DEMO / "vanilla", DEMO / "concept-tuning"
_LOOPBACK = "127.0.0.1"
# Within a Space alone, whose front is the only one that reaches it.
_ANYWHERE = "0.0.0.0"  # nosec B104
_PORTS = range(7860, 7960)
#: Requests that wait for the models at once, and the longest wait in seconds.
WAITING, SECONDS = 24, 30.0
_SESSIONS = 200
_CANDIDATES, _SHOWN, _BIRDS = 24, 6, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the demo until it is interrupted; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if (options.run_a is None) != (options.run_b is None):
            raise ConfigError("Give both --run-a and --run-b, or neither for the two demo models.")
        auth = read_auth(options.auth) if options.auth else None
        with _private_folder() as folder:
            for name in ("SIGTERM", "SIGHUP"):  # whoever stops the demo that way gets its folder removed too
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), _interrupt)
            serve(
                options.run_a or _RUN_A,
                options.run_b or _RUN_B,
                folder,
                port=options.port,
                share=options.share,
                auth=auth,
            )
    except StudioError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def serve(
    run_a: Path,
    run_b: Path,
    folder: Path,
    *,
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    block: bool = True,
) -> Any:
    """Serve the demo of two runs; returns Gradio's application where it does not block.

    It listens on the loopback address alone, except inside a Space, whose own front stands before it.

    Args:
        run_a: Folder of the first run.
        run_b: Folder of the second.
        folder: Where uploads and answers are put; Gradio must have been imported with it for its own.
        port: To listen on; None: the first free one from 7860 on.
        share: Whether to make a public link.
        auth: User and password; None: everybody may.
        block: Whether to wait until it is interrupted.

    Raises:
        StudioError: if a run cannot be loaded, or the port is taken.
    """
    port = _free_port() if port is None else _checked_port(port)
    import gradio as gr
    from starlette.middleware import Middleware

    from app.demo.gate import Gate
    from app.demo.page import build_demo
    from app.demo.pair import Pair, load_pair
    from app.demo.storage import sweep_regularly
    from app.demo.worker import Worker

    subjects = load_pair(run_a, run_b)
    pair = Pair(subjects, Worker(waiting=WAITING, seconds=SECONDS), folder)
    demo = build_demo(pair, _examples(pair))
    in_space = "SPACE_ID" in os.environ
    gate = Middleware(Gate, folder=folder, uploads=lambda: demo.upload_file_set, behind_proxy=share or in_space)
    sweeping = sweep_regularly(folder)
    # Unset, uvicorn believes connections from this machine about who asked, and the tunnel of a public link is one.
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    _, local, public = demo.launch(
        server_name=_ANYWHERE if in_space else _LOOPBACK,
        server_port=port,
        share=share,
        auth=[auth] if auth else None,
        max_file_size=_max_bytes(),
        show_error=False,
        state_session_capacity=_SESSIONS,
        app_kwargs={"middleware": [gate], "docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=_theme(gr),
        css_paths=[Path(__file__).parent / "demo" / "demo.css"],
        favicon_path=ROOT / "assets" / "icon.svg",
        footer_links=["api"],
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
    )
    print(f"The demo of {pair.names[0]} and {pair.names[1]} is at {public or local}; Ctrl-C stops it.", flush=True)
    if share and not public:
        print("There is no public link: Gradio's server cannot be reached from here.", file=sys.stderr, flush=True)
    if block:
        try:
            threading.Event().wait()
        finally:
            sweeping.set()
            demo.close(verbose=False)
    return demo


def read_auth(text: str) -> tuple[str, str]:
    """Return user and password from ``user:file``, where the file holds the password in its first line.

    Raises:
        ConfigError: if the text has another form, or the file cannot be read or holds no password.
    """
    user, separator, name = text.partition(":")
    if not (separator and user and name):
        raise ConfigError("Write --auth as USER:FILE, where the first line of FILE is the password.")
    try:
        lines = Path(name).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The password file {name} cannot be read ({error}).") from error
    if not lines or not lines[0].strip():
        raise ConfigError(f"The first line of the password file {name} is empty; write the password there.")
    return user, lines[0].strip()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradio_demo.py",
        description="Compare two runs on any picture. Without runs it serves the two demo models, offline.",
    )
    parser.add_argument("--run-a", type=Path, metavar="RUN", help="folder of the first run")
    parser.add_argument("--run-b", type=Path, metavar="RUN", help="folder of the second run")
    parser.add_argument("--share", action="store_true", help="make a public link (needs the network)")
    parser.add_argument("--auth", metavar="USER:FILE", help="ask for this user and the password in the file")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860 on)")
    return parser


def _checked_port(port: int) -> int:
    """Return a port if it can be listened on, before the long work of loading begins; raises ConfigError if not."""
    if not 1 <= port <= 65_535:
        raise ConfigError(f"--port must be 1 to 65535, got {port}.")
    if not _is_free(port):
        raise ConfigError(f"The demo cannot listen on port {port}: it is taken, or not allowed. Choose another --port.")
    return port


def _free_port() -> int:
    """Return the first free port of those that Gradio uses; raises ConfigError if there is none."""
    if "SPACE_ID" in os.environ:
        return _PORTS[0]
    for port in _PORTS:
        if _is_free(port):
            return port
    raise ConfigError(f"All ports from {_PORTS[0]} to {_PORTS[-1]} are taken; name a free one by --port.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def _examples(pair: Any) -> list[Any]:
    from concept_tuning.diagnostics.example_pictures import held_out_examples, planted_examples, telling_first

    first, second = pair.subjects
    found = telling_first(held_out_examples(first, count=_CANDIDATES), first, second)[:_SHOWN]
    sources = [subject.run.config.data.source for subject in pair.subjects]
    if sources[1] != sources[0]:
        found += telling_first(held_out_examples(second, count=_CANDIDATES), first, second)[:_SHOWN]
    return found if "planted" in sources and found else found + planted_examples(_BIRDS)


def _max_bytes() -> int:
    from app.demo.intake import MAX_BYTES

    return MAX_BYTES


def _theme(gr: Any) -> Any:
    """Return the look; its fonts are those of the visitor's machine, so that no other server is asked."""
    fonts = ["Inter", "system-ui", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Soft(
        primary_hue="blue", secondary_hue="orange", font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"]
    )


class _private_folder:  # noqa: N801 - reads as a statement
    """A folder for uploads and answers that only this user may read, gone at the end; Gradio is told of it."""

    def __enter__(self) -> Path:
        try:
            self._path = Path(tempfile.mkdtemp(prefix="concept-tuning-demo-")).resolve()
        except OSError as error:
            raise ConfigError(f"The folder for temporary files cannot be written ({error}); set TMPDIR.") from error
        atexit.register(shutil.rmtree, self._path, ignore_errors=True)
        os.environ["GRADIO_TEMP_DIR"] = str(self._path)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
