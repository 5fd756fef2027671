"""An MCP server by the official SDK, for the suite: over pipes or over HTTP.

python mcp_server.py            speaks over stdin and stdout
python mcp_server.py PORT       speaks streamable HTTP on loopback
"""

import os
import sys
import time

from mcp.server import MCPServer

server = MCPServer("fake", instructions="A server of the suite.")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def whoami() -> dict[str, str]:
    """Tell the environment."""
    return dict(os.environ)


@server.tool()
def fail(reason: str) -> str:
    """Fail for a reason."""
    raise ValueError(reason)


@server.tool()
def sleep(seconds: float) -> str:
    """Answer later."""
    time.sleep(seconds)
    return "awake"


@server.tool()
def die() -> str:
    """End the whole server."""
    os._exit(3)


@server.tool()
def shout(size: int) -> str:
    """Answer with so many letters."""
    return "x" * size


@server.tool()
def pid() -> int:
    """Tell the server's process id."""
    return os.getpid()


if __name__ == "__main__":
    if sys.argv[1:]:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
