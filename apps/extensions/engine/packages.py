"""Reads packages from strangers: a zip or a folder becomes names and bytes.

Hides: the tricks of archives. Invariants: nothing is written while reading; no
name leaves its folder; no link, device or absurd size gets in.
"""

import io
import os
import stat
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath
from typing import NoReturn

from apps.common.errors import FieldProblem
from apps.extensions.errors import PackageRefused

from .store import Files

MOST_FILES = 2_000
MOST_BYTES = 32 * 1_048_576
MOST_BYTES_PER_FILE = 8 * 1_048_576
MOST_DEPTH = 12
LONGEST_NAME = 200
#: Beyond this ratio a zip is a bomb.
MOST_RATIO = 200


def from_zip(data: bytes) -> Files:
    """Unpack a zip in memory.

    Raises: PackageRefused for traversal, links, duplicates, bombs and limits.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _without_wrapper(_unpack(archive, len(data)))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise _refused("archive", f"not a readable zip ({error})", "a zip") from error
    except (RuntimeError, ValueError) as error:
        raise _refused("archive", f"unreadable ({error})", "a plain zip") from error


def from_folder(folder: Path) -> Files:
    """Read a folder of this host. Raises: PackageRefused."""
    if not folder.is_dir():
        _refuse("source", f"{folder} is not a folder", "a folder with SKILL.md")
    files: Files = {}
    total = 0
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in [*folders, *sorted(names)]:
            path = Path(here) / name
            inside = path.relative_to(folder).as_posix()
            kind = path.lstat().st_mode
            if stat.S_ISDIR(kind):
                continue
            if not stat.S_ISREG(kind):
                _refuse(inside, "a link or device", "plain files only")
            total = _check_size(inside, path.lstat().st_size, total)
            files[_check_name(inside, files)] = path.read_bytes()
    return files


def _unpack(archive: zipfile.ZipFile, packed: int) -> Files:
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        _refuse("archive", f"{len(entries)} entries", f"≤ {MOST_FILES}")
    files: Files = {}
    total = 0
    for entry in entries:
        if entry.is_dir():
            continue
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            _refuse(entry.filename, "a link or device", "plain files only")
        total = _check_size(entry.filename, entry.file_size, total)
        if total > 1_048_576 and total > packed * MOST_RATIO:
            _refuse("archive", "unpacks to far more than it holds", "no zip bomb")
        name = _check_name(entry.orig_filename, files)
        files[name] = _read(archive, entry)
    return files


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The header's size is a claim: read no more than it says."""
    with archive.open(entry) as stream:
        data = stream.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        _refuse(entry.filename, "lies about its size", "its true size")
    return data


def _check_size(name: str, size: int, total: int) -> int:
    if size > MOST_BYTES_PER_FILE:
        _refuse(name, f"{size} bytes", f"≤ {MOST_BYTES_PER_FILE} a file")
    if total + size > MOST_BYTES:
        _refuse("archive", "too large", f"≤ {MOST_BYTES} bytes unpacked")
    return total + size


def _check_name(name: str, taken: Files) -> str:
    """Return a name that is safe on every file system, or refuse it."""
    path = PurePosixPath(name)
    plain = path.as_posix()
    bad = (
        not name
        or len(name) > LONGEST_NAME
        or "\\" in name
        or ":" in name
        or path.is_absolute()
        or any(part in ("..", ".") for part in name.split("/"))
        or len(path.parts) > MOST_DEPTH
        or any(not char.isprintable() for char in name)
        or plain != unicodedata.normalize("NFC", plain)
    )
    if bad:
        _refuse(name[:80] or "(no name)", "this name", "a plain relative path")
    if len(taken) >= MOST_FILES:
        _refuse("archive", "too many files", f"≤ {MOST_FILES}")
    folded = plain.casefold()
    if any(folded == other.casefold() for other in taken if len(other) == len(plain)):
        _refuse(plain, "twice in the package", "each name once")
    return plain


def _without_wrapper(files: Files) -> Files:
    """An archive of one folder is that folder."""
    tops = {name.partition("/")[0] for name in files}
    if len(tops) != 1 or not all("/" in name for name in files):
        return files
    top = tops.pop()
    if top.startswith("."):
        return files
    return {name[len(top) + 1 :]: data for name, data in files.items()}


def _refuse(path: str, problem: str, expected: str) -> NoReturn:
    raise _refused(path, problem, expected)


def _refused(path: str, problem: str, expected: str) -> PackageRefused:
    return PackageRefused(
        f"The package is refused at {path}: {problem}; expected {expected}.",
        fields=(FieldProblem(path, problem, expected),),
    )
