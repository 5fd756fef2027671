"""Every setting and every environment variable, in one place.

Secrets have no default; a missing one says how to make it. No behaviour of the
gateway is switched here: policy lives in the database, where it is audited.
"""

import sys
from pathlib import Path

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
#: Set in the processes of a drill's clone: its folder, whose `env` is read instead.
POLAR_CLONE = env.str("POLAR_CLONE", default="")
environ.Env.read_env(Path(POLAR_CLONE) / "env" if POLAR_CLONE else BASE_DIR / ".env")
#: The host:port of each double that a clone may speak to. It reaches nobody else.
POLAR_CLONE_REACHES = env.list("POLAR_CLONE_REACHES", default=[])
#: What programs that Polar starts for itself are given, with their own changes.
ENVIRONMENT = env.ENVIRON


def secret(name: str, how: str) -> str:
    """Read a secret that must be set."""
    value: str = env.str(name, default="")
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set. Put it into .env; make one with: {how}"
        )
    return value


RANDOM_TEXT = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"

# --- Django -----------------------------------------------------------------

SECRET_KEY = secret("SECRET_KEY", RANDOM_TEXT)
DEBUG = env.bool("DEBUG", default=False)
POLAR_ENVIRONMENT = env.str("POLAR_ENVIRONMENT", default="")
POLAR_BIND = env.str("POLAR_BIND", default="127.0.0.1")
POLAR_PORT = env.int("POLAR_PORT", default=8000)
POLAR_BEHIND_TLS = env.bool("POLAR_BEHIND_TLS", default=False)
ALLOWED_HOSTS = env.list("POLAR_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("POLAR_ORIGINS", default=[])

INSTALLED_APPS = [
    "apps.common",
    "apps.audit",
    "apps.vault",
    "apps.access",
    "apps.gateway",
    "apps.runs",
    "apps.extensions",
    "apps.providers",
    "apps.agents",
    "apps.boards",
    "apps.channels",
    "apps.reliability",
    "polar_site.admin.PolarAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "csp",
    "ninja",
]

MIDDLEWARE = [
    "apps.common.middleware.RequestContext",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "apps.common.middleware.Door",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "polar_site.gate.RoleGate",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "apps.common.middleware.LocalTime",
    "apps.common.middleware.PageErrors",
]

ROOT_URLCONF = "polar_site.urls"
WSGI_APPLICATION = "polar_site.wsgi.application"
ASGI_APPLICATION = "polar_site.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
TESTING = "pytest" in sys.modules
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG or TESTING or POLAR_CLONE
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# --- Who may enter ----------------------------------------------------------

AUTH_USER_MODEL = "access.User"
AUTHENTICATION_BACKENDS = ["apps.access.policies.ByGroup"]
LOGIN_URL = "access:login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "access:login"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
POLAR_UI_API_SECRET = env.str("POLAR_UI_API_SECRET", default="")

#: Single sign-on by OpenID Connect; off without an issuer.
POLAR_OIDC_ISSUER = env.str("POLAR_OIDC_ISSUER", default="")
POLAR_OIDC_CLIENT_ID = env.str("POLAR_OIDC_CLIENT_ID", default="")
POLAR_OIDC_CLIENT_SECRET = env.str("POLAR_OIDC_CLIENT_SECRET", default="")
POLAR_OIDC_LABEL = env.str("POLAR_OIDC_LABEL", default="Single sign-on")
POLAR_OIDC_SCOPES = env.str("POLAR_OIDC_SCOPES", default="openid profile email")
#: The claim, and {"value of it": "role"}: nobody enters whom it gives none.
POLAR_OIDC_ROLE_CLAIM = env.str("POLAR_OIDC_ROLE_CLAIM", default="groups")
POLAR_OIDC_ROLES = env.str("POLAR_OIDC_ROLES", default="{}")
POLAR_OIDC_DOMAINS = env.list("POLAR_OIDC_DOMAINS", default=[])
#: The exact host:port of an identity provider that may be inside.
POLAR_OIDC_LOCAL = env.list("POLAR_OIDC_LOCAL", default=[])

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 60 * 60
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = POLAR_BEHIND_TLS
SECURE_SSL_REDIRECT = POLAR_BEHIND_TLS
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if POLAR_BEHIND_TLS else None
)
SECURE_HSTS_SECONDS = 31_536_000 if POLAR_BEHIND_TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = POLAR_BEHIND_TLS
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "manifest-src": [SELF],
    }
}
#: The largest request body. Units: bytes.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500

# --- Where state lives ------------------------------------------------------

DATABASE_URL = env.str("DATABASE_URL", default="")
SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
        "PRAGMA foreign_keys=ON; PRAGMA mmap_size=0; PRAGMA cache_size=-16000;"
    ),
}
if DATABASE_URL:
    DATABASES = {"default": env.db_url("DATABASE_URL")}
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": BASE_DIR / "polar-system.db",
        }
    }
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["ENGINE"] = "polar_site.sqlite3"
    DATABASES["default"]["OPTIONS"] = SQLITE_OPTIONS
else:
    DATABASES["default"]["ENGINE"] = "polar_site.postgresql"
    DATABASES["default"]["OPTIONS"] = {
        "server_side_binding": True,
        "prepare_threshold": 3,
        # Nobody waits long for a server that is away, and the next who asks tries it.
        "pool": {
            "min_size": 1,
            "max_size": 20,
            "timeout": 15,
            "reconnect_timeout": 3,
        },
        # Of a process that stands still in a transaction the locks are free before
        # those who wait for them give up.
        "options": "-c statement_timeout=60000 -c lock_timeout=20000 "
        "-c idle_in_transaction_session_timeout=10000",
    }

#: With so many runs waiting, new work that can wait is refused.
POLAR_QUEUE_LIMIT = env.int("POLAR_QUEUE_LIMIT", default=20_000)
REDIS_URL = env.str("REDIS_URL", default="")
#: What outside watchers may read; both are off until somebody asks for them.
POLAR_METRICS = env.bool("POLAR_METRICS", default=False)
POLAR_OTEL = env.bool("POLAR_OTEL", default=False)
CELERY_APP = "polar_site.celery.app"

# --- Keys, witness, sink ----------------------------------------------------

#: "kid2:base64,kid1:base64"; the first encrypts, all decrypt.
POLAR_VAULT_KEYS = env.str("POLAR_VAULT_KEYS", default="")
POLAR_VAULT_KEY = env.str("POLAR_VAULT_KEY", default="")
POLAR_AUDIT_KEY = secret(
    "POLAR_AUDIT_KEY",
    "python3 -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'",
)
POLAR_WITNESS_DIR = Path(
    env.str("POLAR_WITNESS_DIR", default=str(BASE_DIR / "var" / "witness"))
)
POLAR_SNAPSHOT_DIR = Path(
    env.str("POLAR_SNAPSHOT_DIR", default=str(BASE_DIR / "var" / "snapshots"))
)
#: Clones of drills while they run, and the evidence they leave.
POLAR_DRILLS_DIR = Path(
    env.str("POLAR_DRILLS_DIR", default=str(BASE_DIR / "var" / "drills"))
)
POLAR_SINK_FILE = env.str(
    "POLAR_SINK_FILE", default=str(BASE_DIR / "var" / "sink" / "audit.jsonl")
)
#: Other places that keep a copy of the log; each is off while its address is empty.
POLAR_SINK_SYSLOG = env.str("POLAR_SINK_SYSLOG", default="")
POLAR_SINK_HTTP_URL = env.str("POLAR_SINK_HTTP_URL", default="")
POLAR_SINK_HTTP_TOKEN = env.str("POLAR_SINK_HTTP_TOKEN", default="")
POLAR_SINK_S3_URL = env.str("POLAR_SINK_S3_URL", default="")
POLAR_SINK_S3_REGION = env.str("POLAR_SINK_S3_REGION", default="us-east-1")
POLAR_SINK_S3_KEY_ID = env.str("POLAR_SINK_S3_KEY_ID", default="")
POLAR_SINK_S3_SECRET = env.str("POLAR_SINK_S3_SECRET", default="")
POLAR_SINK_S3_DAYS = env.int("POLAR_SINK_S3_DAYS", default=400)
#: The exact host:port of sinks that may be inside.
POLAR_SINK_LOCAL = env.list("POLAR_SINK_LOCAL", default=[])
#: Packages of extensions, each in a folder named by its SHA-256.
POLAR_EXTENSIONS_DIR = Path(
    env.str("POLAR_EXTENSIONS_DIR", default=str(BASE_DIR / "var" / "extensions"))
)

# --- Providers that appear by themselves ------------------------------------

OPENAI_API_KEY = env.str("OPENAI_API_KEY", default="")
ANTHROPIC_API_KEY = env.str("ANTHROPIC_API_KEY", default="")
GEMINI_API_KEY = env.str("GEMINI_API_KEY", default="")
OLLAMA_HOST = env.str("OLLAMA_HOST", default="http://127.0.0.1:11434")
LOCAL_MODEL_URL = env.str("LOCAL_MODEL_URL", default="")

# --- Channels that appear by themselves -------------------------------------

TELEGRAM_BOT_TOKEN = env.str("TELEGRAM_BOT_TOKEN", default="")
#: The bot's own, and one that lets it hear: by Socket Mode, or signed HTTP.
SLACK_BOT_TOKEN = env.str("SLACK_BOT_TOKEN", default="")
SLACK_APP_TOKEN = env.str("SLACK_APP_TOKEN", default="")
SLACK_SIGNING_SECRET = env.str("SLACK_SIGNING_SECRET", default="")

# --- Logs -------------------------------------------------------------------

LOG_LEVEL = env.str("LOG_LEVEL", default="WARNING")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"context": {"()": "apps.common.logs.ContextFilter"}},
    "formatters": {"json": {"()": "apps.common.logs.JsonFormatter"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "filters": ["context"],
            "formatter": "json",
        }
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
}
