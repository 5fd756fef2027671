"""The settings of the suite: a fixed environment, then the real settings; only a
password costs less.

The environment is set before `polar_site.settings` reads it, so neither the caller's
shell nor a `.env` beside it can reach a test. Only the two service addresses pass.
"""

import base64
import os


def _witness() -> str:
    """Only the processes of a journey are given one, by whoever starts them."""
    return (
        os.environ.get("POLAR_WITNESS_DIR", "") if "JOURNEY_LOG" in os.environ else ""
    )


_FIXED = {
    "DEBUG": "false",
    "SECRET_KEY": "tests-only-" + "s" * 50,
    "POLAR_VAULT_KEY": base64.b64encode(b"tests-only-vault-key-32-bytes-00").decode(),
    "POLAR_AUDIT_KEY": base64.b64encode(b"tests-only-audit-key-32-bytes-00").decode(),
    "POLAR_HOSTS": "testserver,localhost,127.0.0.1",
    "POLAR_ORIGINS": "",
    "POLAR_VAULT_KEYS": "",
    "POLAR_WITNESS_DIR": _witness(),
    "POLAR_SNAPSHOT_DIR": "",
    "POLAR_SINK_FILE": "",
    "POLAR_SINK_SYSLOG": "",
    "POLAR_SINK_HTTP_URL": "",
    "POLAR_SINK_S3_URL": "",
    "POLAR_EXTENSIONS_DIR": "",
    "POLAR_UI_API_SECRET": "",
    "POLAR_OIDC_ISSUER": "",
    "OPENAI_API_KEY": "",
    "ANTHROPIC_API_KEY": "",
    "GEMINI_API_KEY": "",
    "OLLAMA_HOST": "",
    "LOCAL_MODEL_URL": "",
    "TELEGRAM_BOT_TOKEN": "",
    "SLACK_BOT_TOKEN": "",
    "SLACK_APP_TOKEN": "",
    "SLACK_SIGNING_SECRET": "",
}
os.environ.update(_FIXED)
os.environ.setdefault("DATABASE_URL", "")
os.environ.setdefault("REDIS_URL", "")

from polar_site.settings import *  # noqa: E402
from polar_site.settings import DATABASES, PASSWORD_HASHERS  # noqa: E402

# pytest-django knows Django's own SQLite backend by name only; ours needs the word.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": ":memory:"}

# A person costs a quarter of a second at the product's price; the suite has thousands.
PRODUCT_PASSWORD_HASHERS = PASSWORD_HASHERS
PASSWORD_HASHERS = ["tests.hashing.CheapScrypt"]
