"""The reference servers of the MCP project, which nobody here wrote.

Not installed by the suite. To run them, install without scripts and point at it:

    npm install --ignore-scripts --prefix DIR \\
        @modelcontextprotocol/server-everything @modelcontextprotocol/server-filesystem
    MCP_REFERENCE=DIR pytest tests/extensions/test_mcp_reference.py
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest

from apps.common.errors import UpstreamError
from apps.extensions import ports
from apps.extensions.adapters.mcp import McpRuntime
from tests.extensions import hostile

FOLDER = os.environ.get("MCP_REFERENCE", "")
PROJECT = "node_modules/@modelcontextprotocol"
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        not FOLDER or not shutil.which("node"), reason="MCP_REFERENCE is not set"
    ),
]

EVERYTHING = [
    ("echo", {"message": "hi"}, "Echo: hi"),
    ("get-sum", {"a": 2, "b": 3}, "is 5"),
    ("get-env", {}, "POLAR_EXTENSION"),
    ("get-structured-content", {"location": "New York"}, "temperature"),
    ("get-tiny-image", {}, "image/png"),
    ("trigger-long-running-operation", {"duration": 0.2, "steps": 2}, "completed"),
    ("get-annotated-message", {"messageType": "error"}, "Error"),
    ("get-resource-links", {"count": 2}, "demo://resource"),
    ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}, "demo://"),
]
FILES = [
    ("write_file", {"path": "{}/b.txt", "content": "x"}, "Successfully"),
    ("read_text_file", {"path": "{}/b.txt"}, "x"),
    ("list_directory", {"path": "{}"}, "b.txt"),
    ("list_allowed_directories", {}, "{}"),
    ("create_directory", {"path": "{}/d"}, "Successfully"),
    ("move_file", {"source": "{}/b.txt", "destination": "{}/d/c.txt"}, "Success"),
    ("search_files", {"path": "{}", "pattern": "**/*.txt"}, "c.txt"),
    ("get_file_info", {"path": "{}/d/c.txt"}, "size"),
    ("directory_tree", {"path": "{}"}, "c.txt"),
]


@pytest.fixture
def runtime(monkeypatch):
    mcp = McpRuntime()
    for transport in (ports.Transport.STDIO, ports.Transport.HTTP):
        monkeypatch.setitem(ports._runtimes, transport, mcp)
    yield mcp
    for extension_id in {key[0] for key in mcp._sessions}:
        mcp.stop(extension_id)


def stdio(server: str, *arguments: str, **more):
    script = f"/package/{PROJECT}/{server}/dist/index.js"
    return ports.Source(
        extension_id=uuid4(),
        ext_id=server,
        transport=ports.Transport.STDIO,
        command=("node", script, *arguments),
        folder=Path(FOLDER),
        **more,
    )


def ask_each(rob, runtime, source, asks):
    """Call each tool through the gateway, in order."""
    pinned = runtime.describe(source).digest
    for name, arguments, expected in asks:
        aimed = hostile.target(source, name, pinned=pinned)
        assert expected in str(hostile.execute(rob, aimed, arguments)), name


def test_everything_over_pipes(rob, runtime):
    source = stdio("server-everything", "stdio")

    ask_each(rob, runtime, source, EVERYTHING)

    assert [each.is_confirmed for each in runtime.stop(source.extension_id)] == [True]


def test_everything_over_http(rob, runtime):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = Path(FOLDER, PROJECT, "server-everything/dist/index.js")
    server = subprocess.Popen(
        ["node", str(script), "streamableHttp"],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    source = ports.Source(
        extension_id=uuid4(),
        ext_id="everything",
        transport=ports.Transport.HTTP,
        url=f"http://127.0.0.1:{port}/mcp",
        local=frozenset({f"127.0.0.1:{port}"}),
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        asks = [each for each in EVERYTHING if each[0] != "get-env"]
        ask_each(rob, runtime, source, asks)
    finally:
        runtime.stop(source.extension_id)
        server.kill()
        server.wait()


def test_files_in_the_granted_folder_and_nowhere_else(rob, runtime, tmp_path):
    root = tmp_path / "granted"
    root.mkdir()
    root.chmod(0o777)
    grants = ports.Grants(write_paths=(str(root),))
    source = stdio("server-filesystem", str(root), grants=grants)
    asks = [
        (
            name,
            {k: v.format(root) if isinstance(v, str) else v for k, v in given.items()},
            expected.format(root),
        )
        for name, given, expected in FILES
    ]

    ask_each(rob, runtime, source, asks)

    pinned = runtime.describe(source).digest
    aimed = hostile.target(
        source, "read_text_file", pinned=pinned, capability="server-filesystem/outside"
    )
    with pytest.raises(UpstreamError, match="says that it failed"):
        hostile.execute(rob, aimed, {"path": "/etc/passwd"})
