"""Channels from a shell."""

import json

import pytest
from django.core.management import CommandError, call_command

from apps.channels import services
from apps.channels.models import ChannelIdentity, PairingRequest
from tests.channels.conftest import update


def test_stranger_is_let_in_from_a_shell(bot, alice, capsys):
    services.receive(account=bot, update=update(1, "hi"))
    code = PairingRequest.objects.get().code

    call_command("channels", "list", "--json")
    shown = capsys.readouterr().out
    assert json.loads(shown)["accounts"][0]["receiving"] == "unknown"
    assert json.loads(shown)["pairings"] == [{"sender": "7", "display": ""}]
    assert code not in shown

    call_command("channels", "pair", code, "--tier", "operator", "--user", "alice")

    assert ChannelIdentity.objects.get().tier == "operator"


def test_unknown_code_is_refused_from_a_shell(bot):
    with pytest.raises(CommandError):
        call_command("channels", "pair", "ABCDEFGH")
