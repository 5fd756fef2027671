"""Letting a bearer token in: guesses are counted, and each token has a rate.

Ten unknown tokens in a minute close this door for their address: from then on an
unknown token is answered 429 without another write. A right token still enters, for
behind a proxy all share one address, and 256 random bits are not guessed. A token
that ended is no guess and is always answered 401.
"""

from apps.access import queries
from apps.access.models import Token
from apps.access.policies import Authenticated
from apps.access.services import lockout
from apps.access.services.pace import Pace
from apps.common import clock
from apps.common.errors import RateLimited, Unauthenticated

DOOR = "token"

pace = Pace()


def enter_by_token(*, raw: str, address: str) -> Authenticated:
    """Say whose live token this is, and count its use.

    Raises: Unauthenticated; RateLimited for a guesser, or a token past its rate.
    """
    try:
        found = queries.authenticate(raw)
    except Unauthenticated:
        if not queries.was_token(raw):
            lockout.check_open(DOOR, "", address)
            lockout.note_failure(DOOR, "", address)
        raise
    if found.token is not None:
        check_rate(found.token)
        note_use(token=found.token)
    return found


def check_rate(token: Token) -> None:
    """Refuse a request that comes before its turn, in this web process.

    Raises: RateLimited.
    """
    left = pace.seconds_early(token.id, token.rate_per_minute)
    if left:
        raise RateLimited(
            f"This token may send {token.rate_per_minute} requests a minute: "
            f"try again in {left} seconds.",
            retry_after_seconds=left,
        )


def note_use(*, token: Token) -> None:
    """Remember when a token was last used, at most once a minute."""
    now = clock.now()
    if token.last_used_at is None or (now - token.last_used_at).seconds >= 60:
        Token.objects.filter(id=token.id).update(last_used_at=now)
