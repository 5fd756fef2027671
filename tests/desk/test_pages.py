"""A store that has been lived in, looked at page by page."""

from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.desk import lived_in, pages

#: What a page may ask of the store, and how long a part of one may be.
MOST_STATEMENTS, MOST_BYTES = 30, 50_000

#: Good answers: a page, nothing new, the way on, an address that only takes a form.
GOOD = (200, 204, 302, 405)


def test_every_page_opens_on_a_lived_in_store_and_shows_no_secret(client, home):
    client.force_login(home.ada)
    wrong: list[tuple[str, object]] = []
    for path in (*pages.addresses(), *pages.admin_addresses()):
        answer = client.get(path)
        if answer.status_code not in GOOD:
            wrong.append((path, answer.status_code))
        if lived_in.CANARY.encode() in _body(answer):
            wrong.append((path, "shows a secret"))

    assert wrong == []


def test_no_page_asks_much_and_no_part_is_large(client, home):
    client.force_login(home.ada)
    wrong: list[tuple[str, object]] = []
    for path in (*pages.addresses(), *pages.admin_addresses()):
        with CaptureQueriesContext(connection) as asked:
            body = _body(client.get(path))
        if len(asked) > MOST_STATEMENTS:
            wrong.append((path, f"{len(asked)} statements"))
        if b"</html>" not in body and len(body) > MOST_BYTES:
            wrong.append((path, f"{len(body)} bytes"))

    assert wrong == []


def _body(answer):
    return b"" if answer.streaming else answer.content
