"""A store that has been lived in, looked at page by page."""

from tests.desk import lived_in, pages

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


def _body(answer):
    return b"" if answer.streaming else answer.content
