"""The verbs of channels: take a message in, bring an answer out, let people in."""

from apps.channels.engine import (
    canary,
    home,
    intake,
    outbox,
    progress,
    replies,
    webhook,
)
from apps.channels.engine.intake import receive
from apps.channels.services.accounts import (
    Changes,
    change_account,
    discover,
    save_bot,
    set_account_state,
)
from apps.channels.services.chatting import (
    Taken,
    begin,
    open_web_account,
    send_message,
    start_conversation,
    take_message,
)
from apps.channels.services.delivery import (
    deliver,
    resend,
    route_approvals,
    tell_operators,
    tells_operators,
)
from apps.channels.services.hearing import (
    LISTEN_KIND,
    LISTEN_QUEUE,
    LISTEN_SECONDS,
    carry_heard,
    hear,
    keep_listening,
    listen,
    warm_up,
)
from apps.channels.services.people import (
    block_sender,
    change_sender,
    decide_pairing,
    refuse_pairing,
    set_tier,
)
from apps.channels.services.places import place_of_token

SEND_KIND = outbox.SEND_KIND
FOLLOW_KIND = progress.FOLLOW_KIND
DELIVER_KIND = replies.DELIVER_KIND
HEAR_KIND = webhook.HEAR_KIND
HOME_KIND = home.HOME_KIND
CANARY_KIND = canary.CANARY_KIND
carry_canary = canary.carry
sing = canary.sing
carry_home = home.carry
take_webhook = webhook.take_for
carry_follow = progress.carry
carry_send = outbox.carry
ring_forgotten = intake.ring_forgotten

__all__ = [
    "CANARY_KIND",
    "DELIVER_KIND",
    "FOLLOW_KIND",
    "HEAR_KIND",
    "HOME_KIND",
    "LISTEN_KIND",
    "LISTEN_QUEUE",
    "LISTEN_SECONDS",
    "SEND_KIND",
    "Changes",
    "Taken",
    "begin",
    "block_sender",
    "carry_canary",
    "carry_follow",
    "carry_heard",
    "carry_home",
    "carry_send",
    "change_account",
    "change_sender",
    "decide_pairing",
    "deliver",
    "discover",
    "hear",
    "keep_listening",
    "listen",
    "open_web_account",
    "place_of_token",
    "receive",
    "refuse_pairing",
    "resend",
    "ring_forgotten",
    "route_approvals",
    "save_bot",
    "send_message",
    "set_account_state",
    "set_tier",
    "sing",
    "start_conversation",
    "take_message",
    "take_webhook",
    "tell_operators",
    "tells_operators",
    "warm_up",
]
