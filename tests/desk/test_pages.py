"""A store that has been lived in, looked at page by page."""

from tests.desk import pages

#: Good answers: a page, nothing new, the way on, an address that only takes a form.
GOOD = (200, 204, 302, 405)


def test_every_page_opens_on_a_store_that_has_been_lived_in(client, home):
    client.force_login(home.ada)
    wrong = []
    for path in (*pages.addresses(), *pages.admin_addresses()):
        answer = client.get(path)
        if answer.status_code not in GOOD:
            wrong.append((path, answer.status_code))

    assert wrong == []
