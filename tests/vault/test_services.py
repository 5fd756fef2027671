"""Put, lease, delete, seal: what they allow, refuse, and leave behind."""

import pickle

import pytest
from django.db import connection, transaction
from django.db.models import ProtectedError

from apps.audit.models import Event
from apps.common import redaction
from apps.common.errors import Conflict, Invalid, NotFound
from apps.common.ids import new_id
from apps.vault import ports, queries, services
from apps.vault.engine import store
from apps.vault.errors import KeyExhausted, SecretUnreadable, VaultSealed
from apps.vault.models import Key, SealState, Secret, Wrap
from apps.vault.services import secrets
from tests.vault.conftest import ALICE, make_key

pytestmark = pytest.mark.django_db

CANARY = "canary-5f1e0c-sk-live-value"


def put(name="openai", value=CANARY, purpose="provider.api_key"):
    return services.put(by=ALICE, name=name, purpose=purpose, value=value)


def lease(secret, run_id=None):
    return services.lease(secret.id, purpose="test", by=ALICE, run_id=run_id)


def reveal(secret) -> str:
    with lease(secret) as value:
        return value.reveal()


def events(type_):
    return Event.objects.filter(type=type_)


class TestPut:
    def test_value_comes_back_in_a_lease(self, ring):
        assert reveal(put()) == CANARY

    def test_put_leaves_an_event_without_the_value(self, ring):
        secret = put()

        event = events("vault.put").get()
        assert event.subject_id == str(secret.id)
        assert CANARY not in event.body

    def test_same_value_again_changes_nothing(self, ring):
        first = put()

        again = put()

        assert again.ciphertext == first.ciphertext
        assert events("vault.put").count() == 1

    def test_new_value_replaces_the_old_in_the_same_row(self, ring):
        first = put()

        second = put(value="another-value")

        assert (second.id, reveal(second)) == (first.id, "another-value")
        assert Wrap.objects.count() == 1

    def test_new_purpose_is_bound_anew(self, ring):
        put()

        assert reveal(put(purpose="other")) == CANARY

    @pytest.mark.parametrize(
        "bad", [{"name": ""}, {"value": ""}, {"purpose": "x" * 161}]
    )
    def test_empty_or_too_long_is_refused(self, ring, bad):
        with pytest.raises(Invalid):
            put(**bad)

    def test_encryptions_are_counted(self, ring):
        put()
        put(name="other")

        assert Key.objects.get(kid="k1").encryptions == 2

    def test_exhausted_key_encrypts_no_more(self, ring):
        put()
        Key.objects.update(encryptions=store.MOST_ENCRYPTIONS)

        with pytest.raises(KeyExhausted):
            put(name="one-too-many")

        assert Secret.objects.count() == 1

    def test_last_encryption_of_a_key_is_allowed(self, ring):
        put()
        Key.objects.update(encryptions=store.MOST_ENCRYPTIONS - 1)

        assert reveal(put(name="last")) == CANARY

    def test_fingerprint_tells_equal_values_and_nothing_else(self, ring):
        one, two = put(), put(name="two")

        assert one.fingerprint == two.fingerprint
        assert put(name="three", value="different").fingerprint != one.fingerprint

    def test_first_key_is_adopted_with_an_event(self, ring):
        put()

        assert events("vault.key_adopted").get().subject_id == "k1"


class TestLease:
    def test_lease_leaves_an_event_with_run_and_purpose(self, ring):
        secret, run_id = put(), new_id()

        with lease(secret, run_id=run_id):
            pass

        event = events("vault.leased").get()
        assert (event.run_id, event.actor_id) == (run_id, "alice")
        assert '"purpose":"test"' in event.body

    def test_value_is_redacted_inside_and_only_inside(self, ring):
        secret = put()

        with lease(secret):
            inside = redaction.scrub(f"key={CANARY}")

        assert inside == f"key={redaction.MARK}"
        assert redaction.scrub(CANARY) == CANARY

    def test_value_is_forgotten_when_the_block_fails(self, ring):
        secret = put()

        with pytest.raises(ZeroDivisionError), lease(secret):
            raise ZeroDivisionError

        assert redaction.scrub(CANARY) == CANARY

    def test_value_is_gone_after_the_block(self, ring):
        with lease(put()) as value:
            pass

        with pytest.raises(VaultSealed):
            value.reveal()

    def test_value_is_neither_printed_nor_pickled(self, ring):
        with lease(put()) as value:
            assert CANARY not in f"{value} {value!r}"
            with pytest.raises(TypeError):
                pickle.dumps(value)

    @pytest.mark.django_db(transaction=True)
    def test_no_transaction_is_open_inside(self, ring):
        with lease(put()):
            assert not connection.in_atomic_block

    def test_without_its_event_nothing_is_given(self, ring, monkeypatch):
        secret = put()
        monkeypatch.setattr(secrets.audit, "record", refuse)

        with pytest.raises(RuntimeError), lease(secret):
            pytest.fail("the block must not start")

    def test_unknown_secret_is_not_found(self, ring):
        with (
            pytest.raises(NotFound),
            services.lease(new_id(), purpose="test", by=ALICE),
        ):
            pytest.fail("the block must not start")


def refuse(**_):
    raise RuntimeError("the log is full")


class TestDamage:
    def damage(self, secret, **columns):
        Secret.objects.filter(id=secret.id).update(**columns)

    def test_damaged_row_is_unreadable_and_others_are_not(self, ring):
        bad, good = put(), put(name="good")
        self.damage(bad, ciphertext=good.ciphertext)

        with pytest.raises(SecretUnreadable):
            reveal(bad)

        assert reveal(good) == CANARY

    def test_damage_is_marked_and_told_once(self, ring):
        bad = put()
        self.damage(bad, ciphertext="pv1.AAAA.AAAA")

        for _ in range(2):
            with pytest.raises(SecretUnreadable):
                reveal(bad)

        assert Secret.objects.get().unreadable_since is not None
        assert events("vault.unreadable").count() == 1

    def test_damaged_row_is_healed_by_storing_again(self, ring):
        bad = put()
        self.damage(bad, ciphertext="pv1.AAAA.AAAA")
        with pytest.raises(SecretUnreadable):
            reveal(bad)

        assert reveal(put()) == CANARY
        assert Secret.objects.get().unreadable_since is None

    def test_swapped_wraps_do_not_open(self, ring):
        one, two = put(), put(name="two", value="second-value")
        texts = {w.secret_id: w.wrapped_dek for w in Wrap.objects.all()}
        Wrap.objects.filter(secret=one).update(wrapped_dek=texts[two.id])

        with pytest.raises(SecretUnreadable):
            reveal(one)

    def test_whole_row_under_another_id_does_not_open(self, ring):
        one, two = put(), put(name="two", value="second-value")
        wrap = Wrap.objects.get(secret=two)
        self.damage(one, ciphertext=two.ciphertext)
        Wrap.objects.filter(secret=one).update(wrapped_dek=wrap.wrapped_dek)

        with pytest.raises(SecretUnreadable):
            reveal(one)

    def test_changed_purpose_does_not_open(self, ring):
        secret = put()
        self.damage(secret, purpose="webhook.secret")

        with pytest.raises(SecretUnreadable):
            reveal(secret)

    @pytest.mark.parametrize("text", ["pv0.AAAA.AAAA", "plain-text"])
    def test_database_refuses_other_envelopes(self, ring, text):
        secret = put()

        with pytest.raises(Exception, match="secret_is_pv1"), transaction.atomic():
            self.damage(secret, ciphertext=text)


class TestRing:
    def test_no_key_seals_by_name(self, keys):
        keys()

        with pytest.raises(VaultSealed, match="POLAR_VAULT_KEY"):
            put()

        assert queries.status().reason == "no_key"

    def test_passphrase_seals_by_name(self, keys):
        keys(k1="correct horse battery staple")

        with pytest.raises(VaultSealed, match="passphrase"):
            put()

        assert queries.status().reason == "bad_key"

    def test_wrong_key_is_named_and_nothing_is_touched(self, ring, keys):
        secret = put()
        keys(k1=make_key())

        for act in (put, lambda: reveal(secret)):
            with pytest.raises(VaultSealed, match="k1"):
                act()

        kept = Secret.objects.get()
        assert (kept.ciphertext, kept.unreadable_since) == (secret.ciphertext, None)
        assert queries.status().reason == "wrong_key"

    def test_wrong_self_named_key_is_noticed_too(self, settings):
        settings.POLAR_VAULT_KEYS, settings.POLAR_VAULT_KEY = "", make_key()
        put()
        settings.POLAR_VAULT_KEY = make_key()

        with pytest.raises(VaultSealed):
            put(name="other")

        assert (queries.status().reason, Key.objects.count()) == ("missing_key", 1)

    def test_no_key_is_adopted_while_secrets_stand_under_another(self, ring, keys):
        put()
        keys(k2=make_key())

        with pytest.raises(VaultSealed, match="stored under k1"):
            put(name="new")

        assert list(Key.objects.values_list("kid", flat=True)) == ["k1"]

    def test_new_first_key_beside_the_old_encrypts_and_both_decrypt(self, ring, keys):
        old = put()
        keys(k2=make_key(), k1=ring)

        new = put(name="new")

        assert Wrap.objects.get(secret=new).recipient == "key:k2"
        assert (reveal(old), reveal(new)) == (CANARY, CANARY)

    def test_key_without_its_check_value_opens_nothing(self, ring):
        secret = put()
        Key.objects.all().delete()

        with pytest.raises(VaultSealed):
            reveal(secret)

        assert queries.status().reason == "unchecked_key"

    def test_known_ring_without_an_old_key_loses_only_its_secrets(self, ring, keys):
        old = put()
        second = make_key()
        keys(k2=second, k1=ring)
        new = put(name="new")
        keys(k2=second)

        with pytest.raises(SecretUnreadable, match="k1"):
            reveal(old)

        assert reveal(new) == CANARY

    def test_secret_opens_again_once_its_key_is_back(self, ring, keys):
        secret = put()
        keys(k1=make_key())
        keys(k1=ring)

        assert reveal(secret) == CANARY

    def test_another_install_does_not_open_the_rows(self, ring):
        secret = put()
        services.store.Install.objects.update(install_id=new_id())

        with pytest.raises(SecretUnreadable):
            reveal(secret)


class TestSeal:
    def test_sealed_vault_gives_nothing_and_takes_nothing(self, ring):
        secret = put()
        services.seal(by=ALICE, reason="drill")

        for act in (lambda: reveal(secret), lambda: put(value="other-value")):
            with pytest.raises(VaultSealed, match="drill"):
                act()

    def test_seal_and_unseal_leave_events_and_epochs(self, ring):
        services.seal(by=ALICE, reason="drill")
        services.unseal(by=ALICE, reason="over")

        assert events("vault.sealed").get().reason == "drill"
        assert events("vault.unsealed").get().reason == "over"
        assert SealState.load().seal_epoch == 2

    def test_seal_again_changes_nothing(self, ring):
        services.seal(by=ALICE, reason="first")
        services.seal(by=ALICE, reason="second")

        assert queries.status().detail.endswith("first")
        assert events("vault.sealed").count() == 1

    def test_seal_needs_a_reason(self, ring):
        with pytest.raises(Invalid):
            services.seal(by=ALICE, reason=" ")

    def test_unsealed_vault_opens_again(self, ring):
        secret = put()
        services.seal(by=ALICE, reason="drill")

        services.unseal(by=ALICE)

        assert reveal(secret) == CANARY

    def test_unseal_without_the_key_is_refused(self, ring, keys):
        put()
        services.seal(by=ALICE, reason="drill")
        keys(k1=make_key())

        with pytest.raises(VaultSealed):
            services.unseal(by=ALICE)

        assert SealState.load().sealed

    def test_unseal_rings_those_who_wait(self, ring, monkeypatch):
        heard = []
        monkeypatch.setattr(ports, "_unsealed", [])
        ports.plug_unsealed(lambda: heard.append("woken"))
        services.seal(by=ALICE, reason="drill")

        services.unseal(by=ALICE)

        assert heard == ["woken"]

    def test_plugging_twice_rings_once(self, monkeypatch):
        heard = []
        monkeypatch.setattr(ports, "_unsealed", [])
        ports.plug_unsealed(heard.clear)
        ports.plug_unsealed(heard.clear)

        assert len(ports._unsealed) == 1

    def test_unseal_of_an_open_vault_changes_nothing(self, ring):
        services.unseal(by=ALICE)

        assert not events("vault.unsealed").exists()

    def test_sealed_error_makes_work_wait(self):
        assert (VaultSealed.waits_as, VaultSealed.http_status) == ("waiting_vault", 503)


class TestDelete:
    def test_deleted_secret_is_gone_with_its_wraps(self, ring):
        secret = put()

        services.delete(by=ALICE, secret_id=secret.id)

        assert (Secret.objects.count(), Wrap.objects.count()) == (0, 0)
        assert events("vault.deleted").get().subject_id == str(secret.id)

    def test_unknown_secret_is_not_found(self, ring):
        with pytest.raises(NotFound):
            services.delete(by=ALICE, secret_id=new_id())

    def test_secret_that_is_needed_stays(self, ring, monkeypatch):
        secret = put()
        monkeypatch.setattr(Secret, "delete", protected)

        with pytest.raises(Conflict):
            services.delete(by=ALICE, secret_id=secret.id)

    def test_lost_key_does_not_keep_a_secret(self, ring, keys):
        secret = put()
        keys(k9=make_key())

        services.delete(by=ALICE, secret_id=secret.id)

        assert reveal(put()) == CANARY


def protected(secret):
    raise ProtectedError("still in use", {secret})


def test_secret_is_found_by_name(ring):
    secret = put()

    assert queries.find_secret("openai") == secret
    assert queries.find_secret("other") is None


def test_no_table_and_no_event_holds_the_value(ring):
    """The canary scan: every text of every table."""
    secret = put()
    with lease(secret):
        pass
    services.seal(by=ALICE, reason="drill")

    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            rows += cursor.fetchall()

    assert len(rows) > 5
    assert CANARY not in repr(rows)
    assert ring not in repr(rows)
