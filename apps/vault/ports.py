"""Where a higher floor hears that the vault can be opened again."""

from collections.abc import Callable

_unsealed: list[Callable[[], object]] = []


def plug_unsealed(callback: Callable[[], object]) -> None:
    """Call `callback` in the transaction that unseals. Again: called once."""
    if callback not in _unsealed:
        _unsealed.append(callback)


def ring_unsealed() -> None:
    """Tell everybody who plugged in."""
    for callback in _unsealed:
        callback()
