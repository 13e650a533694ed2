"""The command line in this process, and a hub on this machine that takes what is pushed."""

import base64
import http.server
import json
import shutil
import threading
from functools import partial

import pytest
from typer.testing import CliRunner

from influence_cli.cli import output
from influence_cli.cli.app import build_app


def influence_in(folder, *arguments):
    """Run the command line in this process, in ``folder``; a bug is raised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(output, "_quiet", False)
        result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_folder):
    """A folder with a run of eight conversations that a rubric judged, and a run of training."""
    folder = tmp_path_factory.mktemp("made")
    where = ("--env", tiny_folder, "--turns", "2", "-m", "scripted:demo", "-q")
    assert influence_in(folder, "simulate", *where, "--n", "8", "--out", "runs/made").exit_code == 0
    rubric = ("--with", "sycophancy", "--judge", "scripted:demo", "-q")
    assert influence_in(folder, "score", "runs/made", *rubric).exit_code == 0
    how = ("--samples", "2", "--algo", "scripted", "--iterations", "2", "--out", "runs/trained")
    assert influence_in(folder, "train", *where, *how).exit_code == 0
    told = influence_in(folder, "export", "runs/made", "--to", "datasets", "--out", "made", "-o", "license=cc-by-4.0")
    assert (told.exit_code, told.stderr) == (0, "8 trajectories are in made.\n")
    return folder


@pytest.fixture
def place(made, tmp_path):
    """A folder of the test's own with the runs and the data set."""
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def influence(place):
    """Run the command line in the test's folder."""
    return partial(influence_in, place)


class Hub(http.server.ThreadingHTTPServer):
    """What the hub's client needs of a hub: repositories are made, files are committed."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.repositories = []
        self.files = {}
        self.keys = set()
        self.refuses = False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"id": "me/x", "siblings": []})

    def do_POST(self):
        body = self.body()
        self.server.keys.add(self.headers.get("Authorization"))
        if self.server.refuses:
            self.answer({"error": "no write access"}, 403)
        elif self.path == "/api/repos/create":
            self.server.repositories.append(json.loads(body))
            self.answer({"url": f"{self.server.url}/datasets/me/x", "name": "me/x", "id": "1"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {"commitUrl": f"{self.server.url}/datasets/me/x/commit/abc", "commitOid": "abc", "success": True}
            )
        else:
            self.answer({"errors": [], "warnings": []})

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while length := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, document, status=200):
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
