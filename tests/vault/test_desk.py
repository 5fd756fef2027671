"""The page, the API and the commands: the same verbs behind each door."""

import io
import json
import stat

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from apps.access.models import Role, Workspace
from apps.audit.models import Event
from apps.vault import ports, services
from apps.vault.engine import rescue
from apps.vault.models import Recovery, SealState, Secret, Wrap
from tests.people import person
from tests.vault.conftest import ALICE, make_key
from tests.vault.test_rotation import fill, reveal, run_out

pytestmark = pytest.mark.django_db
CANARY = "canary-9d2e-live-value"


def default() -> Workspace:
    return Workspace.objects.get_or_create(slug="default", name="Default")[0]


@pytest.fixture
def stored(ring):
    return fill(3)


@pytest.fixture
def desk(client, db):
    """Carol administers."""
    client.force_login(person("carol", Role.ADMIN, default()))
    return client


def act(desk, action, **posted):
    url = reverse("vault:act", args=[action])
    return desk.post(url, posted, follow=True).content.decode()


def vault(monkeypatch, capsys, *arguments, given=""):
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    try:
        call_command("vault", *arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out


class TestPage:
    def test_shows_fingerprints_and_no_value(self, ring, desk):
        secret = services.put(by=ALICE, name="a", purpose="p", value=CANARY)

        text = desk.get(reverse("vault:status")).content.decode()

        assert secret.fingerprint in text
        assert CANARY not in text
        assert secret.ciphertext not in text

    def test_is_for_administrators(self, stored, client):
        operator = person("dave", Role.APPROVER, default())
        client.force_login(operator)

        assert client.get(reverse("vault:status")).status_code == 403
        assert client.post(reverse("vault:make_kit")).status_code == 403
        assert (
            client.post(reverse("vault:act", args=["seal"]), {"reason": "x"})
        ).status_code == 403
        assert not SealState.load().sealed

    def test_costs_the_same_for_many_secrets(
        self, ring, desk, django_assert_max_num_queries
    ):
        fill(30)

        with django_assert_max_num_queries(27):
            desk.get(reverse("vault:status"))

    def test_seal_and_unseal_with_reasons(self, stored, desk):
        assert "Sealed in every process" in act(desk, "seal", reason="drill")
        assert SealState.load().sealed
        assert "Unsealed" in act(desk, "unseal", reason="over")

        told = Event.objects.filter(type__in=["vault.sealed", "vault.unsealed"])
        assert {event.actor_label for event in told} == {"carol"}

    def test_sealing_without_a_reason_says_so(self, stored, desk):
        assert "needs a reason" in act(desk, "seal")

    def test_rotation_is_tried_begun_and_found_again(self, stored, desk, keys, ring):
        keys(k2=make_key(), k1=ring)

        assert "would wrap 3 secrets" in act(desk, "try")
        assert "Begun: 3" in act(desk, "rotate")
        assert "0 of 3" in desk.get(reverse("vault:panel")).content.decode()
        services.tick()
        assert "3 of 3" in desk.get(reverse("vault:panel")).content.decode()
        assert "Retired: k1" in act(desk, "finish")

    def test_a_kit_is_shown_once_and_not_cached(self, stored, desk):
        answer = desk.post(reverse("vault:make_kit"), {"form": "shares"})
        run_out()

        assert "no-store" in answer.headers["Cache-Control"]
        assert answer.content.decode().count('<code class="wrap">') == 5
        assert "shares" in desk.get(reverse("vault:status")).content.decode()

    def test_a_kit_is_dropped_with_a_reason(self, stored, desk):
        services.make_kit(by=ALICE, form="offline")
        recipient = Recovery.objects.get().recipient

        act(desk, "drop-kit", recipient=recipient, reason="copied")

        assert Recovery.objects.get().dropped_at is not None

    def test_a_backup_is_proved(self, stored, desk, ring):
        assert "this is key:k1" in act(desk, "verify", kept=ring)
        assert "Not done" in act(desk, "verify", kept="nonsense")

    def test_the_way_back_by_kit(self, stored, desk, keys):
        line = services.make_kit(by=ALICE, form="offline").lines[0]
        run_out()
        keys(new=make_key())

        assert (
            "The key is missing" in desk.get(reverse("vault:status")).content.decode()
        )
        assert "3 secrets are back" in act(desk, "recover", kept=line)
        assert reveal(stored[0]) == "value 0"

    def test_the_way_back_by_checklist(self, stored, desk, keys):
        keys(new=make_key())

        assert "3 secrets are to be" in act(desk, "accept-loss", reason="burned")
        for each in stored[:2]:
            act(desk, "reenter", secret=str(each.pk), value="fresh")
        act(desk, "forget", secret=str(stored[2].pk), reason="vendor left")

        assert {entry.state for entry in services.checklist()} == {"ok"}
        assert reveal(stored[0]) == "fresh"

    def test_unknown_actions_and_secrets_are_named(self, stored, desk):
        assert "There is no action" in act(desk, "explode")
        assert "no such secret" in act(desk, "reenter", secret="x", value="v")

    def test_re_encryption_begins(self, stored, desk):
        assert "3 secrets get new data keys" in act(desk, "reencrypt", reason="leak")


class TestApi:
    @pytest.fixture
    def call(self, desk):
        def send(method, path, body=None, status=200):
            answer = desk.generic(
                method,
                f"/api/v1/vault{path}",
                json.dumps(body or {}),
                content_type="application/json",
            )
            assert answer.status_code == status, answer.content
            return answer.json() if answer.content else None

        return send

    def test_tells_state_secrets_and_checklist(self, stored, call):
        assert call("GET", "")["state"] == "open"
        items = call("GET", "/secrets")["items"]
        assert "ciphertext" not in items[0]
        assert call("GET", "/checklist") == []
        assert len(call("GET", "/checklist?everything=true")) == 3

    def test_seals_and_unseals(self, stored, call):
        assert call("POST", "/seal", {"reason": "drill"})["state"] == "sealed"
        assert call("POST", "/unseal", {"reason": "over"})["state"] == "open"

    def test_rotates_and_finishes(self, stored, call, keys, ring):
        keys(k2=make_key(), k1=ring)

        assert call("GET", "/rotation/preview")["rows"] == 3
        assert call("POST", "/rotation", {}, 202)["total"] == 3
        services.tick()
        assert call("GET", "/rotation")["state"] == "done"
        assert call("POST", "/rotation/finish") == ["k1"]
        assert call("POST", "/reencryption", {"reason": "leak"}, 202)["total"] == 3

    def test_makes_proves_and_drops_a_kit(self, stored, call, ring):
        made = call("POST", "/kits", {"form": "shares"}, 201)
        kept = "\n".join(made["lines"][:3])

        assert call("POST", "/backup", {"kept": kept})["proved"] == made["recipient"]
        call("DELETE", f"/kits/{made['recipient']}?reason=copied", None, 204)

    def test_recovers_and_accepts_a_loss(self, stored, call, keys, settings):
        made = call("POST", "/kits", {"form": "offline"}, 201)
        services.tick()
        keys(new=make_key())

        told = call("POST", "/recover", {"kept": made["lines"][0]})
        assert told["total"] == 3
        keys(newer=make_key())
        assert call("POST", "/loss", {"reason": "burned"})["count"] == 3
        path = f"/secrets/{stored[0].pk}"
        assert call("PUT", path, {"value": "v"})["state"] == "ok"
        call("DELETE", f"{path}?reason=gone", None, 204)

    def test_refuses_who_is_no_administrator(self, stored, client):
        bob = person("bob", Role.APPROVER, default())
        client.force_login(bob)

        answer = client.get("/api/v1/vault")

        assert (answer.status_code, answer.json()["code"]) == (403, "POLAR_FORBIDDEN")


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch, capsys):
        def go(*arguments, given=""):
            return vault(monkeypatch, capsys, *arguments, given=given)

        return go

    def test_rotates_after_a_dry_run_and_finishes(self, stored, run, keys, ring):
        keys(k2=make_key(), k1=ring)

        assert run("rotate", "--dry-run")[0] == 0
        assert Wrap.objects.filter(recipient="key:k1").count() == 3
        code, out = run("rotate", "--json")
        assert (code, json.loads(out)["state"]) == (0, "done")
        assert "retired: k1" in run("finish")[1]

    def test_one_key_is_refused_with_exit_code_1(self, stored, run):
        with pytest.raises(CommandError, match="two keys") as refused:
            run("rotate")

        assert refused.value.returncode == 1

    def test_a_kit_goes_to_a_file_of_its_owner(self, stored, run, tmp_path, keys):
        path = tmp_path / "kit"

        _, out = run("export-recovery", "--form", "shares", "--out", str(path))
        text = path.read_text()

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert text.splitlines()[0] not in out
        assert run("verify-backup", given="\n".join(text.splitlines()[2:]))[0] == 0
        keys(new=make_key())
        assert run("recover", given="\n".join(text.splitlines()[:3]))[0] == 0
        assert reveal(stored[1]) == "value 1"

    def test_a_file_that_exists_is_left_alone_and_no_kit_made(
        self, stored, run, tmp_path
    ):
        path = tmp_path / "kit"
        path.write_text("mine")

        with pytest.raises(CommandError, match="new file"):
            run("export-recovery", "--out", str(path))

        assert (path.read_text(), Recovery.objects.count()) == ("mine", 0)

    def test_a_kit_is_not_poured_into_a_pipe(self, stored, run):
        with pytest.raises(CommandError, match="--out"):
            run("export-recovery")

    def test_a_kit_is_dropped(self, stored, run):
        services.make_kit(by=ALICE, form="offline")
        recipient = Recovery.objects.get().recipient

        assert run("export-recovery", "--drop", recipient)[0] == 0
        assert Recovery.objects.get().dropped_at is not None

    def test_everything_is_entered_again_from_standard_input(
        self, stored, run, keys, monkeypatch
    ):
        keys(new=make_key())
        assert run("recover", "--nothing", "--reason", "burned")[0] == 0
        assert run("checklist")[0] == 4

        for each in stored:
            assert run("recover", "--enter", each.name, given="fresh\n")[0] == 0

        code, out = run("checklist", "--json")
        assert (code, {line["state"] for line in json.loads(out)}) == (0, {"ok"})
        assert reveal(stored[2]) == "fresh"

    def test_a_refused_value_exits_1_and_is_named(self, stored, run, monkeypatch):
        said = ports.Tested(ok=False, problem="401 from the vendor")
        place = ports.Place("x", test=lambda: said)
        monkeypatch.setattr(ports, "_places", [lambda *_: place])

        code, out = run("recover", "--enter", "s0", given="wrong")

        assert (code, "401 from the vendor" in out) == (1, True)

    def test_seals_unseals_and_lists_what_to_change(self, stored, run):
        assert run("seal", "--reason", "drill")[0] == 0
        assert run("status")[0] == 3
        assert run("unseal", "--reason", "over")[0] == 0
        code, out = run("reencrypt", "--reason", "leak")
        assert (code, "Change each of" in out, "s2" in out) == (0, True, True)

    def test_a_name_nobody_knows_is_refused(self, stored, run):
        with pytest.raises(CommandError, match="no secret named"):
            run("recover", "--enter", "nobody", given="v")


def test_a_canary_stands_in_no_table_event_or_page(ring, desk, keys, monkeypatch):
    """The value and both private parts go through every verb and stay nowhere."""
    services.put(by=ALICE, name="c", purpose="p", value=CANARY)
    offline = services.make_kit(by=ALICE, form="offline").lines[0]
    run_out()
    shares = services.make_kit(by=ALICE, form="shares").lines
    run_out()
    new = make_key()
    keys(new=new, k1=ring)
    services.rotate(by=ALICE)
    run_out()
    services.reencrypt(by=ALICE, reason="leak")
    run_out()
    services.verify_backup(by=ALICE, text=offline)

    told = str(list(Event.objects.values())) + str(list(Secret.objects.values()))
    told += str(list(Wrap.objects.values())) + str(list(Recovery.objects.values()))
    told += desk.get(reverse("vault:status")).content.decode()
    private = rescue.read_key(offline).private.hex()
    assert not [s for s in (CANARY, offline, *shares, new, ring, private) if s in told]
