"""The content store: packages by SHA-256, outside the database, never rewritten.

Hides: how a package is hashed and laid out. Invariants: a folder's name is the
hash of its files; it is written whole or not at all; what is handed out was
checked against its name just before.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from django.conf import settings

from apps.common import canonical
from apps.extensions.errors import ToolMisconfigured

Files = dict[str, bytes]
_FILE_MODE, _FOLDER_MODE = 0o444, 0o555


class PackageChanged(ToolMisconfigured):
    """A kept package is no longer what its name says."""


def digest_of(files: Files) -> str:
    """Hash names and contents: one changed byte or name is another package."""
    return canonical.digest(
        {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    )


def put(files: Files) -> str:
    """Keep a package and return its SHA-256. Again: it is already there."""
    digest = digest_of(files)
    final = _root() / digest
    if final.exists():
        return digest
    _root().mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=_root()))
    for name, data in files.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(_FILE_MODE)
    _seal_folders(draft)
    try:
        draft.rename(final)
    except OSError:
        _remove(draft)
        if not final.exists():
            raise
    return digest


def folder_of(digest: str) -> Path:
    """Return a package's folder. Raises: ToolMisconfigured when it is not there;
    PackageChanged when it is no longer what its name says."""
    folder = _root() / digest
    if len(digest) != 64 or not folder.is_dir():
        raise ToolMisconfigured(
            f"The package {digest[:12]} is not in the content store of this host; "
            "install it again."
        )
    if digest_of(read(folder)) != digest:
        raise PackageChanged(
            f"The package {digest[:12]} was changed on disk; it is not run."
        )
    return folder


def read(folder: Path) -> Files:
    """Read a kept folder back. A link or a device in it reads as nothing."""
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind):
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
        elif not stat.S_ISDIR(kind):
            files[path.relative_to(folder).as_posix()] = b"not a file"
    return files


def _root() -> Path:
    return Path(settings.POLAR_EXTENSIONS_DIR) / "packages"


def _seal_folders(draft: Path) -> None:
    """Nobody writes here any more; a sandboxed child, who is somebody else, reads."""
    for folder, _, _ in os.walk(draft, topdown=False):
        Path(folder).chmod(_FOLDER_MODE)


def _remove(draft: Path) -> None:
    for folder, _, _ in os.walk(draft):
        Path(folder).chmod(0o755)
    shutil.rmtree(draft)
