"""A plaintext that lives exactly as long as its lease."""

from apps.common.redaction import SecretStr
from apps.vault.errors import VaultSealed


class LeasedSecret(SecretStr):
    """A secret that is gone once its `with` block is left."""

    __slots__ = ("_ended",)

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self._ended = False

    def reveal(self) -> str:
        if self._ended:
            raise VaultSealed("This lease has ended.", reason_code="lease_ended")
        return super().reveal()

    def end(self) -> None:
        self._value = ""
        self._ended = True
