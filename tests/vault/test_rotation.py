"""A new key while everything serves: batches, kills, the old key retired."""

import os

import pytest

from apps.audit.models import Event
from apps.common import failpoints
from apps.common.errors import Conflict
from apps.vault import services
from apps.vault.engine import rewrapping
from apps.vault.errors import KeyExhausted, KeyNotHeld, KeyRetired
from apps.vault.models import Key, Rotation, Secret, Wrap
from tests.vault.conftest import ALICE, make_key

pytestmark = pytest.mark.django_db
#: `make chaos` rotates ten thousand rows with a hundred kills.
ROWS = int(os.environ.get("POLAR_TEST_VAULT_ROWS", "250"))
KILLS = int(os.environ.get("POLAR_TEST_VAULT_KILLS", "4"))


class Killed(BaseException):
    """The process ends here."""


def fill(count: int) -> list[Secret]:
    return [
        services.put(by=ALICE, name=f"s{n}", purpose="p", value=f"value {n}")
        for n in range(count)
    ]


def reveal(secret: Secret) -> str:
    with services.lease(secret.pk, purpose="test", by=ALICE) as value:
        return value.reveal()


def run_out() -> int:
    taken = 0
    while services.advance(by=ALICE).state == "running":
        taken += 1
    return taken


@pytest.fixture
def two(ring, keys):
    """Twelve secrets under k1; the ring now starts with k2."""
    made = fill(12)
    keys(k2=make_key(), k1=ring)
    return made


@pytest.fixture
def disarm():
    yield
    failpoints.install(None)


class TestRotate:
    def test_every_row_ends_under_the_new_key_and_ciphertext_stays(self, two):
        before = dict(Secret.objects.values_list("pk", "ciphertext"))

        services.rotate(by=ALICE)
        run_out()

        assert set(Wrap.objects.values_list("recipient", flat=True)) == {"key:k2"}
        assert dict(Secret.objects.values_list("pk", "ciphertext")) == before
        assert [reveal(each) for each in two] == [f"value {n}" for n in range(12)]

    def test_one_key_is_refused_and_nothing_is_begun(self, ring):
        fill(1)

        with pytest.raises(Conflict, match="two keys"):
            services.rotate(by=ALICE)

        assert not Rotation.objects.exists()

    def test_each_step_leaves_an_event(self, two):
        services.rotate(by=ALICE, reason="yearly")
        run_out()

        told = Event.objects.filter(type__startswith="vault.rotation")
        assert sorted(told.values_list("type", flat=True)) == [
            "vault.rotation_batch",
            "vault.rotation_done",
            "vault.rotation_started",
        ]

    def test_a_dry_run_counts_and_writes_nothing(self, two):
        before = Event.objects.count()

        told = services.preview(by=ALICE)

        assert (told.rows, told.batches, told.rows_by_kid) == (12, 1, {"k1": 12})
        assert (Rotation.objects.count(), Event.objects.count()) == (0, before)

    def test_a_dry_run_names_what_would_not_open(self, two):
        Wrap.objects.filter(secret=two[3]).update(wrapped_dek="pv1.AAAA.AAAA")

        assert services.preview(by=ALICE).unreadable == ("s3",)

    def test_a_damaged_row_is_marked_and_the_others_go_on(self, two):
        Wrap.objects.filter(secret=two[3]).update(wrapped_dek="pv1.AAAA.AAAA")

        services.rotate(by=ALICE)
        run_out()

        marked = Secret.objects.filter(unreadable_since__isnull=False)
        assert [row.name for row in marked] == ["s3"]
        assert Wrap.objects.filter(recipient="key:k2").count() == 11

    def test_a_second_begin_goes_on_with_the_first(self, two):
        services.rotate(by=ALICE)
        services.rotate(by=ALICE)

        assert Rotation.objects.count() == 1

    def test_a_value_stored_meanwhile_is_neither_lost_nor_wrapped_twice(self, two):
        services.rotate(by=ALICE)
        services.put(by=ALICE, name="s0", purpose="p", value="newer")
        run_out()

        assert reveal(two[0]) == "newer"
        assert Wrap.objects.filter(secret=two[0]).count() == 1

    def test_a_wrap_that_went_meanwhile_undoes_the_batch(self, two, monkeypatch):
        services.rotate(by=ALICE)
        made = rewrapping.store.wraps_for

        def meanwhile(secret, *args, **kwargs):
            Wrap.objects.filter(secret=secret).delete()
            return made(secret, *args, **kwargs)

        monkeypatch.setattr(rewrapping.store, "wraps_for", meanwhile)
        with pytest.raises(Conflict):
            services.advance(by=ALICE)

        assert Wrap.objects.filter(recipient="key:k1").count() == 12

    def test_the_clock_goes_on_with_what_was_left(self, two):
        services.rotate(by=ALICE)

        services.tick()

        assert services.progress().state == "done"

    def test_the_clock_waits_while_the_vault_is_sealed(self, two):
        services.rotate(by=ALICE)
        services.seal(by=ALICE, reason="drill")

        assert services.tick() == 0
        assert Rotation.objects.get().done_at is None

    def test_each_wrap_is_counted_and_the_limit_refuses(self, two):
        services.rotate(by=ALICE)
        limit = services.store.MOST_ENCRYPTIONS
        Key.objects.filter(kid="k2").update(encryptions=limit - 11)

        with pytest.raises(KeyExhausted):
            services.advance(by=ALICE)

        assert Wrap.objects.filter(recipient="key:k1").count() == 12


class TestKilled:
    @pytest.mark.parametrize("place", ["vault.batch", "vault.batch_written"])
    def test_killed_in_and_between_batches_nothing_is_lost(
        self, ring, keys, place, disarm
    ):
        rotated_with_kills(ring, keys, place)


def rotated_with_kills(ring, keys, place):
    made = fill(ROWS)
    keys(k2=make_key(), k1=ring)
    services.rotate(by=ALICE)
    left = KILLS

    def kill(name):
        nonlocal left
        if name == place and left:
            left -= 1
            raise Killed

    failpoints.install(kill)
    while services.progress().state == "running":
        try:
            services.advance(by=ALICE)
        except Killed:
            continue
    services.finish(by=ALICE)

    assert left == 0
    assert not Wrap.objects.filter(recipient="key:k1").exists()
    assert Secret.objects.filter(unreadable_since__isnull=False).count() == 0
    assert [reveal(each) for each in made[::25]] == [
        f"value {n}" for n in range(0, ROWS, 25)
    ]


class TestFinish:
    def test_refused_while_any_row_has_the_old_key(self, two):
        with pytest.raises(Conflict, match="12 secrets"):
            services.finish(by=ALICE)

        assert not Key.objects.filter(retired_at__isnull=False).exists()

    def test_afterwards_the_old_key_may_leave_the_ring(self, two, keys, settings):
        services.rotate(by=ALICE)
        run_out()

        assert services.finish(by=ALICE) == ["k1"]

        settings.POLAR_VAULT_KEYS = settings.POLAR_VAULT_KEYS.split(",")[0]
        assert reveal(two[0]) == "value 0"

    def test_a_retired_key_encrypts_no_more_in_any_process(self, two, keys, ring):
        services.rotate(by=ALICE)
        run_out()
        services.finish(by=ALICE)
        keys(k1=ring)  # a process that was never restarted

        with pytest.raises(KeyRetired):
            services.put(by=ALICE, name="late", purpose="p", value="v")

        assert not Secret.objects.filter(name="late").exists()

    def test_a_process_with_the_old_ring_waits_rather_than_fails(self, two, keys, ring):
        services.rotate(by=ALICE)
        run_out()
        keys(k1=ring)

        with pytest.raises(KeyNotHeld) as refused:
            reveal(two[0])

        assert refused.value.waits_as == "waiting_vault"


class TestReencrypt:
    def test_every_row_gets_a_new_data_key_and_keeps_its_value(self, two):
        before = dict(Secret.objects.values_list("pk", "ciphertext"))
        wraps = set(Wrap.objects.values_list("pk", flat=True))

        services.reencrypt(by=ALICE, reason="a laptop was stolen")
        run_out()

        after = dict(Secret.objects.values_list("pk", "ciphertext"))
        assert not set(before.values()) & set(after.values())
        assert not wraps & set(Wrap.objects.values_list("pk", flat=True))
        assert [reveal(each) for each in two] == [f"value {n}" for n in range(12)]

    def test_what_to_change_at_its_source_is_listed(self, two):
        told = services.checklist(everything=True)

        assert len(told) == 12
        assert told[0].used_by == "p"

    def test_two_kinds_of_work_do_not_mix(self, two):
        services.rotate(by=ALICE)

        with pytest.raises(Conflict, match="under way"):
            services.reencrypt(by=ALICE, reason="leak")
