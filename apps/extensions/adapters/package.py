"""Reads the text of a package for a model. Nothing of a package is run here."""

import os
from pathlib import Path, PurePosixPath
from uuid import UUID

from apps.common.errors import FieldProblem
from apps.extensions.errors import ToolMisconfigured, ToolValidationError
from apps.extensions.ports import Definition, Source, Target, Termination, ToolContext
from apps.gateway.ports import Json, Permit, Result

#: What a model is given of one file. Units: bytes.
MOST_BYTES = 262_144


class TextRuntime:
    """The runtime of a skill's instructions and files. It has no process to stop."""

    def describe(self, source: Source) -> Definition:
        """A package describes itself; it is never asked."""
        raise ToolMisconfigured(f"{source.ext_id} is a package, not a server.")

    def execute(
        self, target: Target, arguments: Json, permit: Permit, context: ToolContext
    ) -> Result:
        """Read one file of the package. Raises: ToolValidationError."""
        name = str(arguments.get("path") or "SKILL.md")
        path = _inside(target.source, name)
        permit.spend(arguments, waits=False)
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        text = data[:MOST_BYTES].decode("utf-8", "replace")
        return Result({"path": name, "text": text, "isCut": len(data) > MOST_BYTES})

    def stop(self, extension_id: UUID) -> list[Termination]:
        return []


def _inside(source: Source, name: str) -> Path:
    """A name of the package, or nothing: links were refused when it came in."""
    if source.folder is None:
        raise ToolMisconfigured(f"{source.ext_id} has no package.")
    plain = PurePosixPath(os.path.normpath(name))
    path = source.folder / plain
    is_out = plain.is_absolute() or ".." in plain.parts or "\0" in name
    if is_out or path.is_symlink() or not path.is_file():
        raise ToolValidationError(
            f"There is no file {name[:80]!r} in this package.",
            fields=(FieldProblem("$.path", "not in the package", "a file of it"),),
        )
    return path
