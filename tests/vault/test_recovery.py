"""The key is lost: by an offline key, by three shares, by entering it all again."""

import itertools

import pytest

from apps.audit.models import Event
from apps.common.errors import Conflict, Invalid
from apps.vault import policies, ports, services
from apps.vault.engine import rescue
from apps.vault.errors import BadRecovery, KeyNotHeld, SecretUnreadable, VaultSealed
from apps.vault.models import Key, Recovery, Secret, Wrap
from tests.vault.conftest import ALICE, make_key
from tests.vault.test_rotation import fill, reveal, run_out

pytestmark = pytest.mark.django_db


def kit(form):
    made = services.make_kit(by=ALICE, form=form)
    run_out()
    return list(made.lines)


@pytest.fixture
def stored(ring):
    return fill(12)


@pytest.fixture
def places(monkeypatch):
    """Let a test plug in who uses secrets."""
    monkeypatch.setattr(ports, "_places", [])
    return ports.plug_places


class TestKit:
    @pytest.mark.parametrize(("form", "lines"), [("offline", 1), ("shares", 5)])
    def test_every_secret_old_and_new_is_wrapped_for_it(self, stored, form, lines):
        assert len(kit(form)) == lines
        services.put(by=ALICE, name="later", purpose="p", value="v")

        recipient = Recovery.objects.get().recipient
        assert Wrap.objects.filter(recipient=recipient).count() == 13

    def test_an_unknown_form_is_refused(self, stored):
        with pytest.raises(Invalid, match="no such"):
            services.make_kit(by=ALICE, form="tattoo")

    def test_its_making_leaves_an_event_and_the_private_part_nowhere(self, stored):
        (line,) = kit("offline")

        event = Event.objects.get(type="vault.recovery_made")
        assert line not in event.body
        assert line not in str(Recovery.objects.values().get())

    def test_a_dropped_kit_opens_nothing_more(self, stored, keys):
        (line,) = kit("offline")
        services.drop_kit(
            by=ALICE, recovery_id=Recovery.objects.get().pk, reason="found in a drawer"
        )
        keys(new=make_key())

        assert services.recover(by=ALICE, kept=line).total == 0
        assert not Wrap.objects.filter(recipient="key:new").exists()

    def test_a_wrap_moved_to_another_row_does_not_open(self, stored):
        (line,) = kit("offline")
        key = rescue.read_key(line)
        one, other = stored[:2]
        text = Wrap.objects.get(secret=one, recipient=key.recipient).wrapped_dek
        place = services.store.place_of(other, services.store.Install.load().install_id)

        with pytest.raises(SecretUnreadable):
            rescue.unwrap(text, place=place, key=key)


class TestRead:
    def test_any_three_of_five_shares_are_enough_in_any_order(self):
        key = rescue.new_key()
        shares = key.as_shares()

        for some in itertools.combinations(reversed(shares), 3):
            assert rescue.read_key("\n".join(some)).private == key.private

    def test_two_shares_are_refused(self):
        with pytest.raises(BadRecovery, match="3 shares"):
            rescue.read_key("\n".join(rescue.new_key().as_shares()[:2]))

    def test_shares_of_two_keys_do_not_fit(self):
        mixed = rescue.new_key().as_shares()[:2] + rescue.new_key().as_shares()[:1]

        with pytest.raises(BadRecovery, match="fit"):
            rescue.read_key("\n".join(mixed))

    def test_a_slip_of_the_pen_is_noticed(self):
        line = rescue.new_key().as_text()
        wrong = "a" if line[20] != "a" else "b"

        with pytest.raises(BadRecovery, match="mistyped"):
            rescue.read_key(line[:20] + wrong + line[21:])


class TestLost:
    def test_nothing_is_overwritten_and_what_needs_secrets_waits(self, stored, keys):
        before = list(Secret.objects.order_by("pk").values())
        keys(new=make_key())

        with pytest.raises(VaultSealed) as refused:
            reveal(stored[0])

        assert (refused.value.waits_as, refused.value.reason_code) == (
            "waiting_vault",
            "missing_key",
        )
        assert list(Secret.objects.order_by("pk").values()) == before

    @pytest.mark.parametrize("form", ["offline", "shares"])
    def test_a_kit_brings_every_secret_back_under_a_new_key(self, stored, keys, form):
        lines = kit(form)
        keys(new=make_key())

        told = services.recover(by=ALICE, kept="\n".join(lines[-3:]))

        assert (told.total, told.unreadable) == (12, 0)
        assert [reveal(each) for each in stored] == [f"value {n}" for n in range(12)]
        assert services.finish(by=ALICE) == ["k1"]
        assert Event.objects.filter(type="vault.recovered").count() == 1

    def test_recovery_wakes_what_waited(self, stored, keys, monkeypatch):
        (line,) = kit("offline")
        keys(new=make_key())
        woken = []
        monkeypatch.setattr(ports, "_unsealed", [lambda: woken.append(1)])

        services.recover(by=ALICE, kept=line)

        assert woken == [1]

    def test_a_stranger_to_this_vault_is_refused(self, stored, keys):
        kit("offline")
        keys(new=make_key())

        with pytest.raises(BadRecovery, match="no recovery kit"):
            services.recover(by=ALICE, kept=rescue.new_key().as_text())

    def test_a_new_key_under_an_old_name_is_refused(self, stored, keys):
        (line,) = kit("offline")
        keys(k1=make_key())

        with pytest.raises(VaultSealed, match="not the key"):
            services.recover(by=ALICE, kept=line)

        assert Key.objects.count() == 1


class TestNothingLeft:
    @pytest.fixture
    def lost(self, stored, keys):
        keys(new=make_key())
        services.accept_loss(by=ALICE, reason="the disk and the backup burned")
        return stored

    def test_a_loss_needs_a_reason(self, stored, keys):
        keys(new=make_key())

        with pytest.raises(Invalid, match="reason"):
            services.accept_loss(by=ALICE, reason=" ")

        assert policies.judge().why == "missing_key"

    def test_no_loss_is_accepted_while_the_key_is_there(self, stored):
        with pytest.raises(Conflict, match="No secret is lost"):
            services.accept_loss(by=ALICE, reason="panic")

    def test_every_secret_is_listed_with_where_to_enter_it(self, lost):
        told = services.checklist()

        assert [entry.state for entry in told] == ["missing"] * 12
        assert told[0].command == "./polar vault recover --enter s0"

    def test_the_ciphertext_stays_for_a_key_that_turns_up(self, lost, settings, ring):
        settings.POLAR_VAULT_KEYS += f",k1:{ring}"

        assert reveal(lost[0]) == "value 0"

    def test_what_needs_a_lost_secret_waits(self, lost):
        with pytest.raises(KeyNotHeld):
            reveal(lost[0])

    def test_entering_all_again_turns_the_list_green(self, lost, places):
        places(lambda *_: ports.Place("test", test=lambda: ports.Tested(True)))

        for each in lost:
            services.reenter(by=ALICE, secret_id=each.pk, value=f"new {each.name}")

        assert {entry.state for entry in services.checklist()} == {"ok"}
        assert reveal(lost[3]) == "new s3"

    def test_a_wrong_value_is_named_and_not_green(self, lost, places):
        no = ports.Tested(ok=False, problem="the vendor answered 401")
        places(lambda *_: ports.Place("test", test=lambda: no))

        told = services.reenter(by=ALICE, secret_id=lost[0].pk, value="wrong")

        assert (told.state, told.problem) == ("refused", "the vendor answered 401")

    def test_where_nobody_can_say_the_value_counts_as_entered(self, lost):
        told = services.reenter(by=ALICE, secret_id=lost[0].pk, value="new")

        assert (told.state, told.is_testable) == ("ok", False)

    def test_a_secret_nobody_needs_can_be_forgotten(self, lost):
        services.forget(by=ALICE, secret_id=lost[0].pk, reason="vendor left")

        assert len(services.checklist()) == 11


class TestVerifyBackup:
    def test_the_key_proves_itself_and_the_date_is_kept(self, stored, ring):
        assert services.verify_backup(by=ALICE, text=f" {ring}\n") == "key:k1"

        assert Key.objects.get().backup_proved_at is not None
        assert Event.objects.filter(type="vault.backup_verified").count() == 1

    def test_its_check_code_proves_it_too(self, stored):
        code = ports.configured_ring().primary.check_code

        assert services.verify_backup(by=ALICE, text=code) == "key:k1"

    def test_another_key_proves_nothing(self, stored):
        with pytest.raises(Invalid):
            services.verify_backup(by=ALICE, text=make_key())

        assert Key.objects.get().backup_proved_at is None

    def test_a_kit_is_proved_by_three_of_its_shares(self, stored):
        shares = kit("shares")

        told = services.verify_backup(by=ALICE, text="\n".join(shares[1:4]))

        assert told == Recovery.objects.get().recipient
