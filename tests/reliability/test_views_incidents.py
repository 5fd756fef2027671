"""The pages of incidents, alerts and SLOs, their API and their commands."""

import json

import pytest
from django.core.management import CommandError, call_command

from apps.reliability import services
from apps.reliability.engine.findings import Finding
from apps.reliability.models import Alert, Incident
from apps.runs.models import Schedule

MOST_QUERIES = 30


@pytest.fixture
def desk(client, alice):
    client.force_login(alice)
    return client


@pytest.fixture
def alert(workspace):
    return services.alerts.note(Finding("PROVIDER_BLACKOUT", "critical", "all down"))


@pytest.mark.parametrize(
    "page", ["incidents/", "alerts/", "slo/", "incidents/panel/", "incidents/?state=x"]
)
def test_page_answers_empty_and_with_rows(desk, page):
    assert desk.get(f"/{page}").status_code == 200
    services.alerts.note(Finding("PROVIDER_BLACKOUT", "critical", "all down"))

    assert desk.get(f"/{page}").status_code == 200


def test_page_of_an_incident_asks_as_much_for_many_alerts(
    desk, alert, django_assert_max_num_queries
):
    for number in range(10):
        services.alerts.note(
            Finding("PROVIDER_BLACKOUT", "critical", "down", str(number))
        )
    incident = Incident.objects.get()

    with django_assert_max_num_queries(MOST_QUERIES):
        answer = desk.get(f"/incidents/{incident.id}/")

    assert "Test every provider" in answer.content.decode()


def test_outsider_sees_no_incident(client, charlie, alert):
    client.force_login(charlie)

    assert client.get(f"/incidents/{Incident.objects.get().id}/").status_code == 404


def test_incident_goes_from_alert_to_review_on_its_page(desk, alert):
    incident = Incident.objects.get()
    base = f"/incidents/{incident.id}/"
    desk.post(f"/alerts/{alert.id}/acknowledge/")
    for step in ("check_workers", "test_providers", "check_config", "make_task"):
        desk.post(f"{base}steps/{step}/")
    for state in ("mitigating", "monitoring", "resolved"):
        incident.refresh_from_db()
        said = {"do": "move", "state": state, "expected_version": incident.version}
        desk.post(f"{base}change/", said)
    incident.refresh_from_db()
    review = {"impact": "an hour", "cause": "a cable", "learned": "two cables"}
    said = {"do": "review", "expected_version": incident.version, **review}

    desk.post(f"{base}change/", said)

    incident.refresh_from_db()
    assert incident.state == "reviewed"
    assert incident.results.count() == 4
    assert desk.get(f"{base}evidence.json").json()["signature"]
    assert b"two cables" in desk.get(f"{base}evidence.md").content


def test_api_lists_opens_steps_and_moves(client, alice, alert):
    client.force_login(alice)
    listed = client.get("/api/v1/alerts?state=standing").json()
    assert listed["items"][0]["code"] == "PROVIDER_BLACKOUT"
    incident = client.get("/api/v1/incidents").json()["items"][0]

    answer = client.post(
        f"/api/v1/incidents/{incident['id']}/steps/check_workers",
        data=json.dumps({}),
        content_type="application/json",
    )

    assert answer.status_code == 200
    assert answer.json()["step"] == "check_workers"


def run(capsys, *words):
    call_command(*words, "--json")
    return json.loads(capsys.readouterr().out)


def test_commands_open_work_and_export(capsys, workspace, tmp_path):
    made = run(capsys, "incidents", "open", "S4", "A crooked icon")
    run(capsys, "incidents", "step", made["name"], "make_task")
    moved = run(capsys, "incidents", "move", made["name"], "resolved")
    run(capsys, "incidents", "export", made["name"], str(tmp_path))

    assert moved["state"] == "resolved"
    assert (tmp_path / f"{made['name']}.md").exists()
    with pytest.raises(CommandError):
        call_command("incidents", "show", "INC-99")


def test_commands_of_alerts_silence_and_rehearse(capsys, workspace):
    made = run(
        capsys, "alerts", "silence", "VAULT_SEALED", "--reason", "x", "--hours", "1"
    )
    run(capsys, "alerts", "lift", made[0]["id"])
    run(capsys, "alerts", "breach")

    assert Alert.objects.get().origin == "synthetic"
    assert {row["slo"] for row in run(capsys, "alerts", "slo")} == {
        "handoff",
        "escalation",
        "sink",
    }


def test_weekly_breach_is_planned_once(workspace):
    services.install_weekly_breach(workspace=workspace)
    services.install_weekly_breach(workspace=workspace)

    assert Schedule.objects.filter(slug="weekly-breach").count() == 1
