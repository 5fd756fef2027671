"""Definition pinning: whatever differs from what was reviewed does not run."""

from typing import Any

import pytest

from apps.audit.models import Event
from apps.common.errors import NotTrusted
from apps.extensions import ports, services
from apps.extensions.engine import comparing, store
from apps.extensions.errors import DefinitionChanged, PackageRefused
from apps.extensions.models import Extension, Version
from apps.extensions.queries import reviewed_form
from apps.gateway.models import Call

from .conftest import ANY, approve, enable


def test_reviewed_server_runs(orders, call, runtime):
    assert call("orders__find", {"id": "1"}).output == {"did": "find"}


CHANGES = {
    "one byte of a description": {"description": "Find an order,"},
    "a name": {"name": "Find"},
    "a schema": {"input_schema": {"type": "object"}},
    "an annotation": {"annotations": {"readOnlyHint": True}},
    "a title": {"title": "Find it"},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_quarantines_before_the_next_call(orders, call, runtime, what):
    runtime.change("find", **CHANGES[what])

    with pytest.raises(NotTrusted) as caught:
        call("orders__find")

    assert caught.value.reason_code == "definition_changed"
    row = Extension.objects.get(id=orders.id)
    assert (row.trust, runtime.targets) == ("blocked", [])
    assert row.trust_reason.startswith("definition_changed")


def test_a_new_tool_quarantines_and_the_difference_is_kept(orders, call, runtime):
    spy = ports.Offer(name="forward", description="Send it on.", input_schema=ANY)
    runtime.serve(*runtime.served.offers, spy)

    with pytest.raises(NotTrusted):
        call("orders__find")

    row = Extension.objects.get(id=orders.id)
    now = Version.objects.get(extension=row, definition_hash=row.definition_hash)
    delta = comparing.delta(reviewed_form(row), now.definition)
    assert delta.added == ["forward"]
    lines = comparing.diff(reviewed_form(row), now.definition)
    assert any(line.kind == "add" and "Send it on." in line.text for line in lines)
    assert Event.objects.filter(type="extension.quarantined").count() == 1


def test_quarantine_holds_for_the_call_after(orders, call, runtime):
    before = runtime.served
    runtime.change("find", description="else")
    with pytest.raises(NotTrusted):
        call("orders__find")
    runtime.served = before

    with pytest.raises(NotTrusted, match="definition_changed"):
        call("orders__find")
    assert Event.objects.filter(type="extension.quarantined").count() == 1
    assert set(Call.objects.filter(kind="tool").values_list("state", flat=True)) == {
        "failed",
        "denied",
    }


def test_a_review_of_the_new_form_lets_it_back(orders, call, runtime, bob):
    runtime.change("find", description="Find an order by its id.")
    with pytest.raises(NotTrusted):
        call("orders__find")

    approve(Extension.objects.get(id=orders.id), bob, trust="reviewed")

    assert call("orders__find").output == {"did": "find"}


def test_one_byte_of_a_package_on_disk_quarantines(skill, bob, call):
    enable(approve(skill, bob), bob)
    path = store.folder_of(skill.package) / "SKILL.md"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(NotTrusted) as caught:
        call("invoices__instructions")

    assert caught.value.reason_code == "definition_changed"
    assert Extension.objects.get(id=skill.id).trust == "blocked"


def test_shadowing_and_hidden_characters_are_named(orders, plugin):
    form = Version.objects.filter(extension=orders).latest("id").definition
    one = form["capabilities"][0]
    one |= {"target": "clock.now", "description": "Tell\u200b the time"}

    warnings = comparing.delta({}, form).warnings

    assert any("goes by the name of polar/clock.now" in text for text in warnings)
    assert any("U+200B" in text for text in warnings)


def test_pattern_that_is_left_to_the_server_is_named(orders, plugin):
    form = Version.objects.filter(extension=orders).latest("id").definition
    text = {"type": "string", "pattern": "^(a+)+$"}
    form["capabilities"][0]["inputSchema"] = {"properties": {"id": text}}

    warnings = comparing.delta({}, form).warnings

    assert "leaves to it: ^(a+)+$" in " ".join(warnings)


def deep(levels: int) -> dict[str, Any]:
    return {"properties": {"a": deep(levels - 1)}} if levels else {}


UNTAKEN = {
    "NUL in a name": {"name": "a\0b"},
    "NUL in a text": {"name": "find", "description": "a\0b"},
    "NUL in a schema": {"name": "find", "input_schema": {"title": "a\0b"}},
    "NUL in a member": {"name": "find", "input_schema": {"properties": {"\0": {}}}},
    "half a character": {"name": "find", "title": "\ud800"},
    "deep": {"name": "find", "input_schema": deep(200)},
    "huge": {"name": "find", "input_schema": {"title": "x" * 100_000}},
    "no schema": {"name": "find", "input_schema": {"type": "anything"}},
}


@pytest.mark.parametrize("what", UNTAKEN)
def test_words_that_cannot_be_kept_are_refused(ada, runtime, what):
    runtime.serve(ports.Offer(**UNTAKEN[what]))
    new = services.NewServer(extension_id="evil", command=("/opt/evil",))

    with pytest.raises(PackageRefused):
        services.sync_mcp_server(by=ada.principal, new=new, reason="try")


@pytest.mark.parametrize("what", UNTAKEN)
def test_words_that_cannot_be_kept_quarantine_all_the_same(
    orders, runtime, call, monkeypatch, what
):
    served = ports.Definition(offers=(ports.Offer(**UNTAKEN[what]),))

    def refuse(*_: Any) -> None:
        raise DefinitionChanged("It is served in another form.", served=served)

    monkeypatch.setattr(runtime, "execute", refuse)

    with pytest.raises(NotTrusted):
        call("orders__find", {"id": "1"})

    orders.refresh_from_db()
    assert (orders.trust, orders.reviewed_hash) == ("blocked", "")
    assert orders.trust_reason.startswith("definition_changed")
    assert orders.is_pinned is False


def test_kept_package_is_read_by_the_child_and_written_by_nobody(skill):
    folder = store.folder_of(skill.package)

    modes = {each.stat().st_mode & 0o777 for each in [folder, *folder.rglob("*")]}

    assert modes == {0o444, 0o555}
