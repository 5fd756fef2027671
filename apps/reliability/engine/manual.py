"""The project's own runbooks and how-tos, as pages, and which one helps where.

Hides: where the files are, and how their Markdown becomes HTML. Only files of these
two folders can be named, and HTML inside them stays text.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.utils.safestring import SafeString
from markdown_it import MarkdownIt

from apps.common.errors import NotFound

FOLDERS = ("runbooks", "how-to")
INDEX = "README"
#: The page that helps with what is on the screen, by how its view's name begins;
#: the longest beginning counts.
HELPS = {
    "providers:": "provider-failover",
    "agents:detail": "provider-failover",
    "vault:": "vault-recovery",
    "extensions:": "extension-kill-switch",
    "gateway:explain": "invalid-execute-request",
    "gateway:find_explanation": "invalid-execute-request",
    "gateway:halts": "extension-kill-switch",
    "reliability:store": "a-swapped-store",
    "channels:account": "connect-telegram",
    "access:tokens": "secret-rotation",
}
_LINK = re.compile(r'href="(?:\.\./(?:runbooks|how-to)/)?([\w-]+)\.md"')


@dataclass(frozen=True, slots=True)
class Leaf:
    """One page of the manual."""

    slug: str
    title: str
    html: SafeString


def helps(view_name: str) -> str:
    """Return the slug of the page that helps there; the index for no better one."""
    fits = [start for start in HELPS if view_name.startswith(start)]
    return HELPS[max(fits, key=len)] if fits else INDEX


def contents() -> dict[str, Path]:
    """Every page by its slug."""
    root = Path(settings.BASE_DIR) / "docs"
    files = [path for name in FOLDERS for path in sorted((root / name).glob("*.md"))]
    return {path.stem: path for path in files}


@lru_cache(maxsize=64)
def read(slug: str) -> Leaf:
    """Return one page, rendered.   Raises: NotFound."""
    path = contents().get(slug)
    if path is None:
        raise NotFound(f"The manual has no page {slug!r}.")
    text = path.read_text()
    title, _, rest = text.removeprefix("# ").partition("\n")
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(rest)
    return Leaf(slug, title, SafeString(_inside(html)))


def _inside(html: str) -> str:
    """Let links between files lead between pages, and tables look like ours."""
    known = contents()

    def lead(found: re.Match[str]) -> str:
        slug = found[1]
        return f'href="/manual/{slug}/"' if slug in known else found[0]

    scroll = '<div class="table-scroll" tabindex="0" role="region" aria-label="Table">'
    html = html.replace("<table>", f'{scroll}<table class="table table--top">')
    html = html.replace("<pre>", '<pre tabindex="0" role="region" aria-label="Lines">')
    return _LINK.sub(lead, html.replace("</table>", "</table></div>"))
