"""A call costs what the day costs on which it began; prices are added, not edited."""

import json
from datetime import date, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from apps.access import services as access
from apps.access.models import Role, User, Workspace
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Denied, Invalid
from apps.providers import ports, queries
from apps.providers import services as providers
from apps.providers.models import Model, Price, UsageRow
from tests import people
from tests.fakes.openai_server import openai_server
from tests.providers import builders
from tests.providers.test_api import bearer

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(workspace: Workspace) -> Model:
    builders.ready(workspace)
    return builders.route("brain", "one", "http://127.0.0.1:9/v1").model


def price(model: Model, starts_on: date, *dollars: float, by: Any = None) -> Price:
    tariff = ports.Tariff(*(int(each * 1_000_000) for each in dollars))
    return providers.add_price(
        by=by or access.system_principal(),
        model=model,
        entry=providers.PriceEntry(starts_on=starts_on, tariff=tariff, note="page"),
    )


def test_usage_is_priced_by_the_date_of_the_call(workspace: Workspace) -> None:
    builders.ready(workspace)
    costs = []
    with openai_server() as server:
        model = builders.route("brain", "one", server.url).model
        now = clock.now()
        price(model, now.date() + timedelta(days=3), 10, 20, 0)
        price(model, now.date() + timedelta(days=6), 100, 200, 0)
        for days in (0, 2, 3, 5, 6, 60):
            with clock.frozen(now + timedelta(days=days)):
                request = builders.request(workspace)
                costs.append(providers.generate(request=request).usage.micros)

    # 8 fresh tokens in and 5 out; the 2 cached cost nothing here.
    assert costs == [18, 18, 180, 180, 1800, 1800]
    assert sorted(UsageRow.objects.values_list("micros", flat=True)) == costs


def test_a_model_begins_its_history_with_its_first_price(model: Model) -> None:
    (first,) = queries.prices_of(model.provider)

    assert first.tariff == model.tariff(clock.now().date())


def test_a_price_of_a_day_that_is_over_is_refused(model: Model) -> None:
    with pytest.raises(Invalid, match="today or later"):
        price(model, clock.now().date() - timedelta(days=1), 1, 1, 1)

    assert model.prices.count() == 1


def test_an_operator_may_not_say_prices(model: Model, alice: User) -> None:
    with pytest.raises(Denied):
        by = access.principal_for_user(user=alice)
        price(model, clock.now().date(), 1, 1, 1, by=by)


def test_a_price_leaves_before_and_after(model: Model) -> None:
    price(model, clock.now().date(), 3, 4, 1)

    event = Event.objects.filter(type="price.saved").latest("id")
    said = json.loads(event.body)["data"]
    assert said["before"] == "1000000/2000000/0"
    assert said["after"] == "3000000/4000000/1000000"
    model.refresh_from_db()
    assert model.input_micros == 3_000_000


def test_saving_limits_keeps_the_price_and_its_future(model: Model) -> None:
    today = clock.now().date()
    price(model, today + timedelta(days=1), 9, 9, 9)
    entry = providers.ModelEntry(
        name=model.name,
        max_output_tokens=99,
        input_micros=1_000_000,
        output_micros=2_000_000,
    )
    providers.save_model(
        by=access.system_principal(), provider=model.provider, entry=entry
    )

    model.refresh_from_db()
    assert model.max_output_tokens == 99
    assert model.tariff(today + timedelta(days=1)).input_micros == 9_000_000
    assert model.prices.count() == 2


def test_page_answer_and_command_add_and_show(
    model: Model, client: Client, workspace: Workspace
) -> None:
    day = clock.now().date() + timedelta(days=2)
    client.force_login(people.person("ada", Role.ADMIN, workspace))
    form = {"model": "fake-1", "starts_on": str(day), "input": "2.5", "output": "10"}
    client.post("/providers/p/one/prices/", form | {"cached": "0.25"})
    page = client.get("/providers/p/one/").content.decode()
    body = {"model": "fake-1", "startsOn": str(day + timedelta(days=1))}
    answer = client.post(
        "/api/v1/providers/one/prices",
        body | {"inputMicros": 7, "outputMicros": 8},
        content_type="application/json",
        headers=bearer(["*"]),
    )
    out = StringIO()
    call_command("providers", "price", "one", "fake-1", "--input=1", stdout=out)
    call_command("providers", "price", "one", "--json", stdout=out)

    assert "$2.50" in page
    assert answer.status_code == 201, answer.content
    shown = json.loads(out.getvalue().splitlines()[-1])
    assert [row["input_micros"] for row in shown] == [7, 2_500_000, 1_000_000]


def test_the_answer_refuses_an_unknown_model(
    workspace: Workspace, client: Client
) -> None:
    builders.route("brain", "one", "http://127.0.0.1:9/v1")
    body = {"model": "nobody", "startsOn": "2090-01-01", "inputMicros": 1}
    answer = client.post(
        "/api/v1/providers/one/prices",
        body | {"outputMicros": 1},
        content_type="application/json",
        headers=bearer(["*"]),
    )

    assert answer.status_code == 422
    assert answer.json()["fields"][0]["path"] == "model"
