"""Named places where a test process may be killed.

In production nothing is installed and `reach` does nothing; there is no setting
or variable that arms it. A test harness process installs a hook in itself.
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Say that the work has come to this point."""
    if _hook is not None:
        _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Arm this process; None disarms it. For test harnesses."""
    global _hook
    _hook = hook
