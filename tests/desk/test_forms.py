"""Whatever is typed into a form of the desk, the page answers in words: no bare 500.

The forms are read off the pages themselves, so a new one is tried the moment it is
there; each case is undone, so that the next one meets the same store. The suite tries
what once failed; POLAR_EVERY_FORM tries every field with everything.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from urllib.parse import urlencode

import pytest
from django.db import transaction
from django.test import Client

from tests.desk import pages

#: No number, too many digits, too large a number, what no store keeps, half a JSON.
ODD = ("²", "9" * 5000, "9" * 22, "a\0b", "\udcff", "{", "<b>", "x" * 70_000)
FORM_TYPE = "application/x-www-form-urlencoded"
EVERY = bool(os.environ.get("POLAR_EVERY_FORM"))
FORM = re.compile(r"<form\b([^>]*)>(.*?)</form>", re.DOTALL)
FIELD = re.compile(r'name="([^"]+)"(?:[^>]*\bvalue="([^"]*)")?')
#: These speak to the outside, which nothing does inside a transaction; or they copy
#: the whole store, or start processes.
LEFT = re.compile(r"/(test|lifecycle|review|snapshot|rehearse|breach)/$|drills/start")

Form = tuple[str, str, dict[str, str]]


class Undone(Exception):
    """Ends a case's transaction."""


@pytest.fixture
def desk(client, home) -> Client:
    client.force_login(home.ada)
    client.raise_request_exception = False
    return client


def forms(client: Client) -> list[Form]:
    """One form of each kind. Shape: (method, address, what it carries)."""
    found: dict[tuple[str, str, tuple[str, ...]], Form] = {}
    for path in pages.addresses():
        answer = client.get(path)
        if answer.streaming or answer.status_code != HTTPStatus.OK:
            continue
        for head, inside in FORM.findall(answer.content.decode()):
            action = re.search(r'action="([^"]*)"', head)
            method = "post" if 'method="post"' in head else "get"
            carried = dict(FIELD.findall(inside))
            carried.pop("csrfmiddlewaretoken", None)
            address = action[1] if action and action[1] else path
            key = (method, pages.pattern(address), tuple(sorted(carried)))
            found.setdefault(key, (method, address, carried))
    return [form for _, form in sorted(found.items()) if not LEFT.search(form[1])]


def cases(method: str, carried: dict[str, str]) -> Iterator[dict[str, str]]:
    """None there at all, all of them odd, each field odd by itself."""
    yield {}
    for odd in ODD if EVERY else ODD[:3]:
        yield dict.fromkeys(carried, odd)
    if EVERY or method == "post":
        for odd in ODD if EVERY else ODD[1:2]:
            yield from ({**carried, name: odd} for name in carried)


def test_no_form_answers_with_a_fault(desk):
    found = forms(desk)
    faults = [
        (method, address, {name: text[:20] for name, text in case.items()})
        for method, address, carried in found
        for case in cases(method, carried)
        if _status(desk, method, address, case) == HTTPStatus.INTERNAL_SERVER_ERROR
    ]

    assert len(found) > 60
    assert faults == []


def _status(client: Client, method: str, address: str, case: dict[str, str]) -> int:
    sent = urlencode(case, errors="surrogateescape")
    send = partial(client.post, address, sent, content_type=FORM_TYPE)
    if method == "get":
        send = partial(client.get, f"{address}?{sent}")
    status = 0
    try:
        with transaction.atomic():
            answer = send()
            status = answer.status_code
            if answer.streaming:  # a file is closed once it was read
                list(answer)
            raise Undone
    except Undone:
        return status
