"""The lists that the rules compare with. Adding a line here is a decision."""

import re

#: The floors from the bottom up. Apps in one row never import each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("common",),
    ("audit",),
    ("vault",),
    ("access",),
    ("gateway",),
    ("runs",),
    ("extensions", "providers"),
    ("agents",),
    ("boards",),
    ("channels",),
    ("reliability",),
)
FLOOR_OF = {app: level for level, apps in enumerate(FLOORS) for app in apps}

FRONT_DOOR = frozenset({"services", "queries", "models", "ports", "errors", "policies"})

#: Rooms from the bottom up; a room imports its own row and those below.
ROOM_ORDER: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("adapters", "ports"),
    ("models",),
    ("policies", "queries"),
    ("engine",),
    ("services",),
    ("schemas", "forms", "checks"),
    ("admin", "api", "views", "management", "tasks", "templatetags"),
    ("urls", "apps"),
)
RANK_OF = {room: rank for rank, rooms in enumerate(ROOM_ORDER) for room in rooms}

FILE_ROOMS = frozenset(
    {
        "__init__",
        "admin",
        "api",
        "apps",
        "checks",
        "errors",
        "forms",
        "models",
        "policies",
        "ports",
        "queries",
        "schemas",
        "services",
        "urls",
        "views",
    }
)
FOLDER_ROOMS = frozenset(
    {
        "adapters",
        "api",
        "engine",
        "management",
        "migrations",
        "models",
        "ports",
        "queries",
        "services",
        "templates",
        "templatetags",
        "views",
    }
)
#: `common` is no app with rooms; these are its modules.
COMMON_ROOMS = frozenset(
    {
        "__init__",
        "actor",
        "admin",
        "apps",
        "canonical",
        "clock",
        "columns",
        "egress",
        "errors",
        "failpoints",
        "ids",
        "listing",
        "logs",
        "look",
        "lookups",
        "loops",
        "middleware",
        "models",
        "pages",
        "periods",
        "redaction",
        "schemas",
        "scopes",
        "search",
        "shapes",
        "settling",
        "statements",
        "tracing",
        "states",
        "units",
    }
)
COMMON_FOLDERS = frozenset({"migrations", "templates", "templatetags"})

#: Modules that reach the network, a vendor or another process.
OUTWARD = frozenset(
    {
        "aiohttp",
        "anthropic",
        "celery",
        "chaoslib",
        "django.core.mail",
        "ftplib",
        "google",
        "grpc",
        "http.client",
        "httpx",
        "httpx2",
        "jwt",
        "kombu",
        "mcp",
        "multiprocessing",
        "ollama",
        "openai",
        "paramiko",
        "pexpect",
        "pty",
        "pydantic_ai",
        "redis",
        "requests",
        "slack_bolt",
        "slack_sdk",
        "smtplib",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "telegram",
        "urllib.request",
        "urllib3",
        "websockets",
        "xmlrpc",
    }
)
OUTWARD_CALLS = re.compile(
    r"^(os\.(system|popen|fork|forkpty|posix_spawnp?|exec\w+|spawn\w+)"
    r"|asyncio\.(create_subprocess_\w+|open_connection|start_server))$"
)
#: Asks this machine for its own name; nothing is sent.
HARMLESS = frozenset({"socket.gethostname"})
#: The few files outside adapters that may name an outward module, and why.
OUTWARD_EXEMPT: dict[str, frozenset[str]] = {
    # the wall itself
    "apps/common/egress.py": frozenset({"httpx", "httpx2", "socket"}),
    # the two Celery tasks are declared with the library's decorator
    "apps/runs/tasks.py": frozenset({"celery"}),
}
CRYPTO_HOMES = ("apps/vault/engine/", "apps/audit/engine/")

WRITES = frozenset(
    {
        "abulk_create",
        "acreate",
        "adelete",
        "asave",
        "aupdate",
        "bulk_create",
        "bulk_update",
        "create",
        "create_superuser",
        "create_user",
        "delete",
        "get_or_create",
        "insert",
        "save",
        "update",
        "update_or_create",
    }
)
#: What marks a write on a row that another app handed out; `update` would also
#: mean a dict there.
ROW_WRITES = frozenset({"adelete", "asave", "delete", "save"})
#: Calls on a manager, a QuerySet or a service module that hand out rows.
ROW_GIVERS = frozenset(
    {
        "aget",
        "all",
        "exclude",
        "filter",
        "first",
        "get",
        "last",
        "load",
        "order_by",
        "select_for_update",
        "select_related",
    }
)
WRITERS = frozenset({"services", "engine", "models"})

CLOCK_HOME = "apps/common/clock.py"
CLOCK_READS = frozenset(
    {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "django.db.models.functions.Now",
        "django.utils.timezone.now",
    }
)
#: These read the time only when called without a value.
CLOCK_READS_BARE = frozenset(
    {"django.utils.timezone.localdate", "django.utils.timezone.localtime"}
)
SQL_CLOCK = re.compile(
    r"\bnow\s*\(|\bcurrent_(timestamp|date|time)\b"
    r"|\b\w+_timestamp\s*\(|\(\s*'now'",
    re.IGNORECASE,
)
SQL_TEXT = re.compile(
    r"\b(select|insert|update|delete|create|alter|where|default)\b", re.IGNORECASE
)

ESCAPE = re.compile(r"^_*(skip_|force|bypass|override)", re.IGNORECASE)
#: Django's own names, which we cannot rename.
ESCAPE_ALLOWED = frozenset(
    {"force_bytes", "force_insert", "force_str", "override_settings", "skip_locked"}
)

BROAD = frozenset({"Exception", "BaseException"})
#: The three boundaries, one broad except each.
BROAD_ALLOWED = (
    re.compile(r"^apps/runs/engine/execut\w+\.py$"),
    re.compile(r"^apps/common/loops\.py$"),
    re.compile(r"^apps/reliability/(queries|views/\w+|engine/health)\.py$"),
)


def rooms_of(app: str) -> tuple[set[str], frozenset[str]]:
    """Return the file names and the folder names that an app may have."""
    if app == "common":
        return {f"{room}.py" for room in COMMON_ROOMS}, COMMON_FOLDERS
    rooms = FILE_ROOMS | {"tasks"} if app == "runs" else FILE_ROOMS
    return {f"{room}.py" for room in rooms}, FOLDER_ROOMS
