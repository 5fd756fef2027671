"""Slack's Web API, through the one way out.

Hides: slack_sdk's client writes and reads the requests; its only function that
opens a connection is replaced by one that goes through `common.egress`. It never
repeats a request by itself: what may be repeated is decided above.
"""

import logging
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import Request

import httpx
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from apps.channels.adapters.files import LARGEST_FILE
from apps.channels.errors import ChannelRefused, DeliveryUnknown
from apps.common import egress
from apps.common.errors import UpstreamError
from apps.common.units import whole_number

API_URL: Final = "https://slack.com/api/"
#: Files lie here and nowhere else; the token is shown to nobody else.
FILES_URL: Final = "https://files.slack.com/"
TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0)
#: Wait so long when Slack asks to wait and does not say how long. Seconds.
USUAL_WAIT: Final = 30.0
#: The longest answer that is read. Units: bytes.
MOST_BYTES: Final = 4_194_304
#: The token is gone: only a person can mend it.
REVOKED: Final = frozenset(
    {"invalid_auth", "token_revoked", "token_expired", "account_inactive"}
    | {"not_authed", "team_access_not_granted", "app_uninstalled"}
)
#: Slack's own trouble; it may pass.
PASSING: Final = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}
    | {"team_added_to_org", "ratelimited", "rate_limited"}
)
#: These take JSON; what only reads takes a form, and overlooks JSON.
#: Source: https://docs.slack.dev/apis/web-api#methods_supporting_json
TAKES_JSON: Final = frozenset(
    {"chat.postMessage", "chat.update", "chat.postEphemeral", "views.publish"}
)
#: Its log quotes request bodies.
_QUIET: Final = logging.getLogger("apps.channels.slack_sdk")
_QUIET.setLevel(logging.CRITICAL)


class GuardedWebClient(WebClient):
    """slack_sdk's client behind the wall."""

    def __init__(self, token: str, *, base_url: str, local: frozenset[str]) -> None:
        super().__init__(
            token=token, base_url=base_url, retry_handlers=[], logger=_QUIET
        )
        # The library takes a proxy from the environment; the wall knows none.
        self.proxy = None
        self._local = local

    def _perform_urllib_http_request_internal(
        self, url: str, req: Request
    ) -> dict[str, Any]:
        """Send one request. The library's own function would use urllib."""
        with egress.client(local=self._local, timeout=TIMEOUT) as http:
            answer = http.request(
                req.get_method(),
                url,
                headers=dict(req.header_items()),
                content=req.data if isinstance(req.data, bytes) else b"",
            )
        return {
            "status": answer.status_code,
            "headers": answer.headers,
            "body": answer.text[:MOST_BYTES],
        }


def ask(client: WebClient, method: str, **arguments: Any) -> dict[str, Any]:
    """Call one method of the Web API and return its answer.

    Raises: ChannelRefused when Slack says no; UpstreamError that says when to come
    again; DeliveryUnknown when the request left and no answer came.
    """
    token = arguments.pop("token", None)
    given = {key: value for key, value in arguments.items() if value is not None}
    headers = {"Authorization": f"Bearer {token}"} if token else None
    takes_json = method in TAKES_JSON
    try:
        answer = client.api_call(
            method,
            headers=headers,
            json=given if takes_json else None,
            params=None if takes_json else given,
        )
    except SlackApiError as error:
        raise _refusal(method, error.response) from error
    except httpx.ConnectError as error:
        raise UpstreamError(f"Slack cannot be reached: {error}") from error
    except httpx.ConnectTimeout as error:
        raise UpstreamError("Slack did not take the connection in time.") from error
    except (httpx.HTTPError, SlackClientError, OSError) as error:
        raise DeliveryUnknown(
            f"{method} left and no answer came ({type(error).__name__})."
        ) from error
    return dict(answer.data) if isinstance(answer.data, dict) else {}


def _refusal(method: str, answer: Any) -> Exception:
    """What Slack's answer means: no, not now, or nobody knows."""
    status = int(answer.status_code)
    data = answer.data if isinstance(answer.data, dict) else {}
    error = str(data.get("error", f"status {status}"))[:80]
    if status == 429 or error in ("ratelimited", "rate_limited"):
        return UpstreamError(
            f"Slack asks {method} to wait.", retry_after=_wait(answer.headers)
        )
    if status >= 500:
        return DeliveryUnknown(f"{method} was answered with {status}.")
    if error in PASSING:
        return UpstreamError(f"Slack is in trouble: {error}.")
    return ChannelRefused(
        f"Slack refused {method}: {error}.", reason=error, revoked=error in REVOKED
    )


def _wait(headers: Any) -> float:
    lowered = {str(key).lower(): str(value) for key, value in dict(headers).items()}
    said = lowered.get("retry-after", "")
    asked = whole_number(said)
    return USUAL_WAIT if asked is None else float(asked)


def load_file(url: str, token: str, *, home: str, local: frozenset[str]) -> bytes:
    """Fetch a small file from Slack's own host, following no redirect.

    Raises: ChannelRefused for another host, a sign-in page or too much;
    UpstreamError.
    """
    asked, at_home = urlsplit(url), urlsplit(home)
    if (asked.scheme, asked.netloc) != (at_home.scheme, at_home.netloc):
        raise ChannelRefused("The file does not lie with Slack.", reason="foreign_host")
    headers = {"Authorization": f"Bearer {token}"}
    found = bytearray()
    try:
        with (
            egress.client(local=local, timeout=TIMEOUT) as http,
            http.stream("GET", url, headers=headers) as answer,
        ):
            kind = answer.headers.get("content-type", "")
            if answer.status_code != 200 or kind.startswith("text/html"):
                raise ChannelRefused("Slack does not let us read it.", reason="file")
            for chunk in answer.iter_bytes():
                found += chunk
                if len(found) > LARGEST_FILE:
                    raise ChannelRefused(
                        f"larger than {LARGEST_FILE} bytes", reason="too_large"
                    )
    except httpx.HTTPError as error:
        raise UpstreamError("The file could not be fetched.") from error
    return bytes(found)
