"""A registered value leaves by no door."""

import copy
import json
import logging
import pickle
import sys

import pytest

from apps.common import logs, redaction
from apps.common.redaction import MARK, SecretStr

VALUE = "sk-live-0123456789"


@pytest.fixture
def registered():
    redaction.register(VALUE)
    yield VALUE
    redaction.forget(VALUE)


def test_registered_value_is_cut_out_everywhere(registered):
    assert redaction.scrub(f"a {VALUE} b {VALUE}") == f"a {MARK} b {MARK}"


def test_forgotten_value_is_left_alone():
    redaction.register(VALUE)
    redaction.forget(VALUE)

    assert redaction.scrub(VALUE) == VALUE


def test_value_registered_twice_is_forgotten_twice(registered):
    redaction.register(VALUE)
    redaction.forget(VALUE)

    assert redaction.scrub(VALUE) == MARK


def test_value_inside_a_longer_one_leaves_no_rest(registered):
    longer = VALUE + "-and-more"
    redaction.register(longer)

    assert redaction.scrub(longer) == MARK
    redaction.forget(longer)


def test_short_value_is_not_registered():
    redaction.register("abc")

    assert redaction.scrub("abc") == "abc"


def test_tree_is_scrubbed_in_keys_and_values(registered):
    tree = {VALUE: [f"x{VALUE}", 1, {"k": (VALUE, None)}]}

    assert redaction.scrub_tree(tree) == {MARK: [f"x{MARK}", 1, {"k": [MARK, None]}]}


def test_longest_tells_how_much_of_a_stream_to_hold(registered):
    assert redaction.longest() == len(VALUE)


def test_log_line_holds_no_secret_in_message_extra_or_stack(registered):
    try:
        raise ValueError(VALUE)
    except ValueError:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "key %s", (VALUE,), sys.exc_info()
        )
    record.header = f"Bearer {VALUE}"

    logs.ContextFilter().filter(record)
    line = logs.JsonFormatter().format(record)

    assert VALUE not in line
    assert json.loads(line)["message"] == f"key {MARK}"


class TestSecretStr:
    def test_reveals_on_request_only(self):
        secret = SecretStr(VALUE)

        assert VALUE not in f"{secret} {secret!r} {[secret]}"
        assert secret.reveal() == VALUE

    @pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_is_never_copied_out(self, leak):
        with pytest.raises(TypeError):
            leak(SecretStr(VALUE))

    def test_is_not_json(self):
        with pytest.raises(TypeError):
            json.dumps(SecretStr(VALUE))
