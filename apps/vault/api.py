"""The vault over the API, for administrators' credentials. No value is read here."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Status

from apps.common.actor import Actor
from apps.common.schemas import PROBLEMS, Cursor, cut, keep_nowhere
from apps.common.scopes import needs
from apps.vault import policies, queries, services
from apps.vault.schemas import (
    CountOut,
    EntryOut,
    KeptIn,
    KeyKitOut,
    KitIn,
    KitOut,
    PreviewOut,
    ProgressOut,
    ProvedOut,
    ReasonIn,
    SecretIn,
    SecretPage,
    ValueIn,
    VaultOut,
)

router = Router(tags=["vault"], by_alias=True)


def _keeper(request: HttpRequest) -> Actor:
    auth: Any = request.auth  # type: ignore[attr-defined]
    policies.check_credential(auth)
    actor: Actor = auth.principal.actor
    return actor


@router.get("/vault", response={200: VaultOut} | PROBLEMS, operation_id="getVault")
@needs("vault:read")
def get_vault(request: HttpRequest) -> dict[str, Any]:
    _keeper(request)
    return asdict(services.status())


@router.get(
    "/vault/secrets", response={200: SecretPage} | PROBLEMS, operation_id="listSecrets"
)
@needs("vault:read")
def list_secrets(request: HttpRequest, page: Query[Cursor]) -> dict[str, Any]:
    _keeper(request)
    items, following = cut(queries.secrets(), page)
    return {"items": items, "next_cursor": following}


@router.post(
    "/vault/secrets", response={201: EntryOut} | PROBLEMS, operation_id="storeSecret"
)
@needs("vault:write")
def store_secret(request: HttpRequest, body: SecretIn) -> Status[dict[str, Any]]:
    """Store what an extension is given, or replace it. The extension's grants name it:
    {"secrets": {"NAME_IN_THE_EXTENSION": "orders/token"}}."""
    by, value = _keeper(request), body.value.get_secret_value()
    told = services.store_secret(by=by, name=body.name, value=value)
    return Status(201, asdict(told))


@router.get(
    "/vault/checklist",
    response={200: list[EntryOut]} | PROBLEMS,
    operation_id="getVaultChecklist",
)
@needs("vault:read")
def checklist(request: HttpRequest, everything: bool = False) -> list[Any]:
    _keeper(request)
    return [asdict(each) for each in services.checklist(everything=everything)]


@router.post(
    "/vault/checklist/test",
    response={200: list[EntryOut]} | PROBLEMS,
    operation_id="testVaultChecklist",
)
@needs("vault:write")
def test_checklist(request: HttpRequest) -> list[Any]:
    """Try out what was entered on other pages, each where it is used."""
    return [asdict(each) for each in services.retest_entered(by=_keeper(request))]


@router.put(
    "/vault/secrets/{secret_id}",
    response={200: EntryOut} | PROBLEMS,
    operation_id="reenterSecret",
)
@needs("vault:write")
def reenter(request: HttpRequest, secret_id: UUID, body: ValueIn) -> dict[str, Any]:
    by, value = _keeper(request), body.value.get_secret_value()
    return asdict(services.reenter(by=by, secret_id=secret_id, value=value))


@router.delete(
    "/vault/secrets/{secret_id}",
    response={204: None} | PROBLEMS,
    operation_id="forgetSecret",
)
@needs("vault:write")
def forget(request: HttpRequest, secret_id: UUID, reason: str) -> Status[None]:
    services.forget(by=_keeper(request), secret_id=secret_id, reason=reason[:300])
    return Status(204, None)


@router.post(
    "/vault/seal", response={200: VaultOut} | PROBLEMS, operation_id="sealVault"
)
@needs("vault:write")
def seal(request: HttpRequest, body: ReasonIn) -> dict[str, Any]:
    services.seal(by=_keeper(request), reason=body.reason)
    return asdict(services.status())


@router.post(
    "/vault/unseal", response={200: VaultOut} | PROBLEMS, operation_id="unsealVault"
)
@needs("vault:write")
def unseal(request: HttpRequest, body: ReasonIn) -> dict[str, Any]:
    services.unseal(by=_keeper(request), reason=body.reason)
    return asdict(services.status())


@router.get(
    "/vault/rotation",
    response={200: ProgressOut} | PROBLEMS,
    operation_id="getVaultRotation",
)
@needs("vault:read")
def rotation(request: HttpRequest) -> dict[str, Any]:
    _keeper(request)
    return asdict(services.progress())


@router.get(
    "/vault/rotation/preview",
    response={200: PreviewOut} | PROBLEMS,
    operation_id="previewVaultRotation",
)
@needs("vault:read")
def preview(request: HttpRequest) -> dict[str, Any]:
    return asdict(services.preview(by=_keeper(request)))


@router.post(
    "/vault/rotation",
    response={202: ProgressOut} | PROBLEMS,
    operation_id="rotateVault",
)
@needs("vault:write")
def rotate(request: HttpRequest, body: ReasonIn) -> Status[dict[str, Any]]:
    """Begin; the clock takes the batches. Look at getVaultRotation."""
    told = services.rotate(by=_keeper(request), reason=body.reason)
    return Status(202, asdict(told))


@router.post(
    "/vault/reencryption",
    response={202: ProgressOut} | PROBLEMS,
    operation_id="reencryptVault",
)
@needs("vault:write")
def reencrypt(request: HttpRequest, body: ReasonIn) -> Status[dict[str, Any]]:
    told = services.reencrypt(by=_keeper(request), reason=body.reason)
    return Status(202, asdict(told))


@router.post(
    "/vault/rotation/finish",
    response={200: list[str]} | PROBLEMS,
    operation_id="finishVaultRotation",
)
@needs("vault:write")
def finish(request: HttpRequest) -> list[str]:
    return services.finish(by=_keeper(request))


@router.get(
    "/vault/kits", response={200: list[KeyKitOut]} | PROBLEMS, operation_id="listKits"
)
@needs("vault:read")
def list_kits(request: HttpRequest) -> list[dict[str, Any]]:
    """List the recovery kits in use, and how many secrets each opens."""
    _keeper(request)
    counts = queries.wraps_by_recipient()
    return [
        {
            "recipient": kit.recipient,
            "form": kit.form,
            "opens": counts.get(kit.recipient, 0),
            "proved_at": kit.proved_at,
        }
        for kit in queries.kits()
    ]


@router.post("/vault/kits", response={201: KitOut} | PROBLEMS, operation_id="makeKit")
@needs("vault:write")
def make_kit(
    request: HttpRequest, body: KitIn, response: HttpResponse
) -> Status[dict[str, Any]]:
    """Answers with the private part, this once; it is kept nowhere."""
    made = services.make_kit(by=_keeper(request), form=body.form)
    keep_nowhere(response)
    told = {"recipient": made.recovery.recipient, "form": body.form}
    return Status(201, told | {"lines": list(made.lines)})


@router.delete(
    "/vault/kits/{recipient}",
    response={204: None} | PROBLEMS,
    operation_id="dropKit",
)
@needs("vault:write")
def drop_kit(request: HttpRequest, recipient: str, reason: str) -> Status[None]:
    by, kit = _keeper(request), queries.get_kit(recipient)
    services.drop_kit(by=by, recovery_id=kit.pk, reason=reason[:300])
    return Status(204, None)


@router.post(
    "/vault/backup", response={200: ProvedOut} | PROBLEMS, operation_id="verifyBackup"
)
@needs("vault:write")
def verify_backup(request: HttpRequest, body: KeptIn) -> dict[str, Any]:
    by, text = _keeper(request), body.kept.get_secret_value()
    return {"proved": services.verify_backup(by=by, text=text)}


@router.post(
    "/vault/recover", response={200: ProgressOut} | PROBLEMS, operation_id="recover"
)
@needs("vault:write")
def recover(request: HttpRequest, body: KeptIn) -> dict[str, Any]:
    by, kept = _keeper(request), body.kept.get_secret_value()
    return asdict(services.recover(by=by, kept=kept))


@router.post(
    "/vault/loss", response={200: CountOut} | PROBLEMS, operation_id="acceptVaultLoss"
)
@needs("vault:write")
def accept_loss(request: HttpRequest, body: ReasonIn) -> dict[str, Any]:
    count = services.accept_loss(by=_keeper(request), reason=body.reason)
    return {"count": count}
