"""What models cost, from which day on.

Invariants: a price begins today or later, so that what was booked stays true; a
model's own columns hold the price in force when they were last written, and
`next_price_on` says from which day on the rows are asked.
"""

from dataclasses import dataclass
from datetime import date

from django.db import transaction

from apps.access.models import Principal
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid
from apps.providers import ports
from apps.providers.models import Model, Price
from apps.providers.policies import check_manage


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEntry:
    """A price as somebody read it. Units: micro-USD per million tokens."""

    starts_on: date
    tariff: ports.Tariff
    note: str = ""


@transaction.atomic
def add_price(*, by: Principal, model: Model, entry: PriceEntry) -> Price:
    """Say what a model costs from a day on.

    Raises: RoleRequired; Invalid for a day that is over. Again: the newest word on
    a day counts; calls that have begun keep what they were booked at.
    """
    check_manage(by)
    if entry.starts_on < clock.now().date():
        problem = FieldProblem("startsOn", "is over", "today or a later day")
        raise Invalid("A price begins today or later.", fields=(problem,))
    return write_price(by=by, model=model, entry=entry)


def write_price(*, by: Principal, model: Model, entry: PriceEntry) -> Price:
    """Keep a price and let the model's columns follow, in the caller's transaction."""
    model = Model.objects.select_for_update(of=("self",)).get(pk=model.pk)
    before = model.tariff(entry.starts_on)
    tariff = entry.tariff
    row, _ = Price.objects.update_or_create(
        model=model,
        starts_on=entry.starts_on,
        defaults={
            "input_micros": tariff.input_micros,
            "output_micros": tariff.output_micros,
            "cached_micros": tariff.cached_micros,
            "by_label": by.label,
            "note": entry.note[:300],
        },
    )
    _follow(model)
    audit.record(
        type="price.saved",
        actor=by.actor,
        subject=("model", str(model.pk)),
        reason=entry.note[:300],
        data={
            "model": str(model),
            "starts_on": entry.starts_on.isoformat(),
            "before": _told(before),
            "after": _told(tariff),
        },
    )
    return row


def _follow(model: Model) -> None:
    """Put the price in force into the columns, and the day of the next beside it."""
    today = clock.now().date()
    prices = Price.objects.filter(model=model)
    held = prices.filter(starts_on__lte=today).order_by("-starts_on").first()
    coming = prices.filter(starts_on__gt=today).order_by("starts_on").first()
    values: dict[str, object] = {
        "next_price_on": coming.starts_on if coming is not None else None
    }
    if held is not None:
        values |= {
            "input_micros": held.input_micros,
            "output_micros": held.output_micros,
            "cached_micros": held.cached_micros,
            "dated": held.starts_on,
        }
    Model.objects.filter(pk=model.pk).update(**values)


def _told(tariff: ports.Tariff) -> str:
    return f"{tariff.input_micros}/{tariff.output_micros}/{tariff.cached_micros}"
