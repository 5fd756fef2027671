"""Drill J: the vendor of a channel is gone for a while; nobody is forgotten."""

from apps.access import queries as access
from apps.access import services as access_services
from apps.channels import services as channels
from apps.channels.models import OutboxMessage, OutboxState, PairingRequest
from apps.reliability.engine.drilling.asking import wait_for
from apps.reliability.engine.drilling.doubles import play
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.surgery import alter
from apps.reliability.ports import Double

#: What the vendor's double wants to hear; it never left the clone.
TOKEN = "10000001:drill-drill-drill-drill-drill"  # noqa: S105 (a double's)
PERSON = 7
HEARS_WITHIN = 60.0
#: The longest pause between two tries of a message, and a little.
SENDS_WITHIN = 90.0


def prepare() -> None:
    """One bot; the chat of the one person who writes to it is told of alerts."""
    double = play("bot", 0)
    double.manner |= {"token": TOKEN, "updates": []}
    notebook.kept["vendor"] = double
    account = channels.save_bot(
        by=access_services.system_principal(),
        workspace=access.default_workspace(),
        kind="telegram",
        slug="drill-bot",
        token=TOKEN,
    )
    url = f"http://{double.place}"
    alter(
        "UPDATE channels_account SET settings = json_object('api_url', ?, 'local',"
        " json_array(?)) WHERE slug = 'drill-bot'",
        [url, double.place],
    )
    told = channels.Changes(alerts_to=str(PERSON))
    channels.change_account(
        by=access_services.system_principal(), account=account, changes=told
    )


def remove_protection() -> None:
    notebook.tell("attention", "Control: what waits to go out will be taken away")


def _vendor() -> Double:
    found: Double = notebook.kept["vendor"]
    return found


def person_writes(text: str) -> int:
    """One more message at the vendor's, which keeps it until it is fetched."""
    updates = _vendor().manner["updates"]
    number = len(updates) + 1
    updates.append(
        {
            "update_id": number,
            "message": {
                "message_id": 1000 + number,
                "date": 1_790_000_000,
                "chat": {"id": PERSON, "type": "private"},
                "from": {"id": PERSON, "is_bot": False, "first_name": "Drill"},
                "text": text,
            },
        }
    )
    return number


def person_is_answered() -> bool:
    """Let the person in, once, and see that a question is answered."""
    if "paired" not in notebook.kept and not _let_in():
        return False
    before = len(_vendor().heard)
    person_writes("What is it?")
    return wait_for(
        lambda: any("This is" in text for text in _said(before)),
        HEARS_WITHIN,
        is_missed_by_control=False,
    )


def _let_in() -> bool:
    person_writes("Hello")
    wanted = PairingRequest.objects.filter(external_user=str(PERSON))
    if not wait_for(wanted.exists, HEARS_WITHIN, is_missed_by_control=False):
        return False
    system = access_services.system_principal()
    channels.decide_pairing(by=system, code=wanted[0].code, approve=True)
    notebook.kept["paired"] = True
    return True


def _said(since: int = 0) -> list[str]:
    return [str(form.get("text", "")) for form in _vendor().heard[since:]]


def cut_channel() -> bool:
    notebook.kept["heard"] = len(_vendor().heard)
    _vendor().cut()
    notebook.fault("the channel's vendor is gone")
    return True


def say_meanwhile(count: int) -> int:
    """What is said while nobody takes it, and what a person writes meanwhile."""
    for number in range(count):
        channels.tell_operators(f"Kept {number}", f"drill-{number}")
    person_writes("Are you still there?")
    return count


def none_given_up(count: int) -> bool:
    """All of it waits; nothing failed for want of a vendor."""
    rows = OutboxMessage.objects.filter(text__startswith="Kept ")
    waiting = rows.filter(state__in=(OutboxState.PENDING, OutboxState.SENDING)).count()
    lost = OutboxMessage.objects.filter(state=OutboxState.FAILED).count()
    said = f"{waiting} of {count} messages wait, {lost} were given up"
    return notebook.observe("messages wait", waiting == count and not lost, said)


def mend_channel() -> bool:
    """Bring the vendor back; the control takes away what waited for it."""
    if notebook.is_control:
        alter("DELETE FROM channels_outboxmessage WHERE state = ?", ["pending"])
    _vendor().mend()
    notebook.tell("ok", "Recovery: the channel's vendor answers again")
    return True


def all_arrived_once(count: int) -> bool:
    """Everything that waited arrived, once and in order, and the person is answered."""
    wanted = [f"Kept {number}" for number in range(count)]

    def arrived() -> list[str]:
        said = _said(int(notebook.kept["heard"]))
        return [text for text in said if text.startswith("Kept ")]

    def answered() -> bool:
        said = _said(int(notebook.kept["heard"]))
        return any("This is" in text for text in said)

    wait_for(lambda: len(arrived()) >= count and answered(), SENDS_WITHIN)
    found, heard = arrived(), answered()
    said = (
        f"{len(found)} of {count} arrived, {len(found) - len(set(found))} twice; "
        + ("the person is answered" if heard else "the person has no answer")
    )
    return notebook.observe("arrived once", found == wanted and heard, said)
