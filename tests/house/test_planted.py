"""Each rule catches what it is for: a violation planted in a tiny tree is found."""

from pathlib import Path

import pytest

from tests.house import rules

CLEAN = {
    "apps/__init__.py": "",
    "apps/common/__init__.py": "",
    "apps/common/clock.py": "import time\nfrom datetime import UTC, datetime\n\n\n"
    "def now():\n    return datetime.fromtimestamp(time.time(), UTC)\n",
    "apps/common/loops.py": "def run(step):\n    try:\n        step()\n"
    "    except Exception:\n        return\n",
    "apps/gateway/__init__.py": '"""Decides."""\n',
    "apps/gateway/models.py": "from django.db import models\n\n\n"
    "class Call(models.Model):\n    pass\n",
    "apps/gateway/services.py": "from apps.gateway.models import Call\n\n\n"
    "def call():\n    return Call.objects.create()\n",
    "apps/runs/__init__.py": '"""Keeps going."""\n',
    "apps/runs/apps.py": "from apps.runs.adapters import broker\n",
    "apps/runs/adapters/broker.py": "import socket\n",
    "apps/runs/services.py": "from apps.common import clock\n"
    "from apps.gateway import services as gateway\n"
    "from apps.gateway.models import Call\n\n\n"
    "def start(call: Call, seen: dict):\n"
    "    seen.update(at=clock.now())\n    return gateway.call()\n",
    "apps/runs/engine/beat.py": "import socket\n\nHOST = socket.gethostname()\n",
    "polar_site/__init__.py": "",
    "polar_site/urls.py": "from apps.gateway import services\n",
}

#: rule, where it is planted, the text, what the message must say
PLANTED = [
    ("R1", "apps/gateway/queries.py", "from apps.runs import services\n", "runs"),
    ("R1", "apps/providers/queries.py", "import apps.extensions.queries\n", "floor"),
    ("R1", "apps/newcomer/models.py", "", "stands on no floor"),
    ("R1", "apps/common/ids.py", "from apps.audit import queries\n", "audit"),
    ("R2", "apps/runs/queries.py", "from polar_site.settings import X\n", "polar"),
    ("R2", "apps/runs/queries.py", "import polar_site.celery\n", "polar_site"),
    ("R3", "apps/runs/queries.py", "from apps.gateway.engine import x\n", "engine"),
    ("R3", "apps/runs/queries.py", "from apps.gateway import views\n", "views"),
    ("R3", "apps/runs/queries.py", "from apps import gateway\n", "its package"),
    ("R4", "apps/runs/utils.py", "", "unlisted"),
    ("R4", "apps/gateway/tasks.py", "", "unlisted"),
    ("R4", "apps/runs/helpers/__init__.py", "", "unlisted"),
    ("R4", "apps/runs/templates/other/page.html", "", "templates/runs"),
    ("R4", "apps/runs/models.py", "from apps.runs import services\n", "services"),
    ("R4", "apps/runs/engine/x.py", "from apps.runs.services import a\n", "services"),
    ("R4", "apps/runs/errors.py", "from . import ports\n", "ports"),
    ("R4", "apps/runs/services/a.py", "from ..views import b\n", "views"),
    (
        "R5",
        "apps/runs/engine/x.py",
        "from apps.runs.adapters import broker\n",
        "of runs",
    ),
    ("R5", "apps/runs/views.py", "import httpx\n", "httpx"),
    ("R5", "apps/runs/views.py", "import urllib.request as r\n", "urllib.request"),
    ("R5", "apps/runs/views.py", "from google import genai\n", "google"),
    (
        "R5",
        "apps/runs/views.py",
        "import socket\nsocket.gethostname()\nsocket.socket()\n",
        "socket",
    ),
    ("R5", "apps/runs/views.py", "import os\nos.system('x')\n", "os.system"),
    (
        "R5",
        "apps/runs/views.py",
        "import importlib\nimportlib.import_module('openai')\n",
        "openai",
    ),
    ("R5", "apps/runs/engine/x.py", "from cryptography import x509\n", "cryptography"),
    (
        "R6",
        "apps/gateway/models.py",
        "from django.db import models\n\n\nclass Call(models.Model):\n"
        "    run = models.ForeignKey('runs.Run', models.CASCADE)\n",
        "up to runs",
    ),
    (
        "R6",
        "apps/audit/models.py",
        "x = models.OneToOneField(to=settings.AUTH_USER_MODEL)\n",
        "up to access",
    ),
    (
        "R7",
        "apps/runs/engine/x.py",
        "from apps.gateway.models import Call\nCall.objects.create()\n",
        ".create()",
    ),
    (
        "R7",
        "apps/runs/engine/x.py",
        "from apps.gateway import models as g\n\n\ndef f():\n"
        "    g.Call.objects.filter(a=1).update(a=2)\n",
        ".update()",
    ),
    (
        "R7",
        "apps/runs/engine/x.py",
        "from apps.gateway.models import Call\n\n\ndef f(call: Call | None):\n"
        "    call.save()\n",
        ".save()",
    ),
    (
        "R7",
        "apps/runs/engine/x.py",
        "from apps.gateway.models import Call\n\n\ndef f():\n"
        "    for call in Call.objects.all():\n        call.delete()\n",
        ".delete()",
    ),
    (
        "R7",
        "apps/runs/engine/x.py",
        "from apps.gateway import queries\n\n\ndef f():\n"
        "    call = queries.get(id=1)\n    call.save()\n",
        ".save()",
    ),
    (
        "R7",
        "apps/gateway/views.py",
        "from apps.gateway.models import Call\n\n\ndef f():\n"
        "    call = Call(a=1)\n    call.save()\n",
        ".save()",
    ),
    (
        "R7",
        "apps/runs/engine/x.py",
        "from apps.common import statements\nfrom apps.gateway.models import Call\n"
        "\n\ndef f():\n    statements.update(Call, {}, {})\n",
        ".update()",
    ),
    (
        "R7",
        "apps/runs/engine/x.py",
        "from apps.common import statements\nfrom apps.gateway.models import Call\n"
        "\n\ndef f():\n    call = Call(a=1)\n    statements.insert(call)\n",
        ".insert()",
    ),
    ("R8", "apps/runs/views.py", "import time\n", "time"),
    (
        "R8",
        "apps/runs/views.py",
        "from datetime import datetime as d\nd.now()\n",
        "datetime.now",
    ),
    ("R8", "apps/runs/views.py", "import datetime\ndatetime.date.today()\n", "today"),
    (
        "R8",
        "apps/runs/views.py",
        "from django.utils import timezone\nx = timezone.now\n",
        "timezone.now",
    ),
    (
        "R8",
        "apps/runs/views.py",
        "from django.utils import timezone\ntimezone.localtime()\n",
        "localtime",
    ),
    (
        "R8",
        "apps/runs/views.py",
        "from django.db.models.functions import Now\nx = Now()\n",
        "Now",
    ),
    (
        "R8",
        "apps/runs/views.py",
        "SQL = 'UPDATE t SET a = now() WHERE b = 1'\n",
        "SQL",
    ),
    ("R8", "apps/runs/models.py", "a = F(auto_now_add=True)\n", "auto_now_add"),
    ("R8", "polar_site/views.py", "import time\n", "time"),
    (
        "R9",
        "apps/runs/adapters/x.py",
        "from django.db import transaction\n",
        "django.db",
    ),
    ("R9", "apps/runs/adapters/x.py", "import django.db\n", "django.db"),
    ("R9", "apps/runs/adapters/x.py", "Run.objects.get()\n", "table"),
    ("R10", "apps/runs/views.py", "def f(*, skip_check=False): ...\n", "skip_check"),
    ("R10", "apps/runs/views.py", "def force_start(): ...\n", "force_start"),
    ("R10", "apps/runs/views.py", "f(bypass=True)\n", "bypass"),
    ("R10", "apps/runs/views.py", "self.override_limit = 1\n", "override_limit"),
    ("R10", "apps/runs/views.py", "p.add_argument('--force')\n", "force"),
    (
        "R11",
        "apps/runs/views.py",
        "try:\n    x()\nexcept (ValueError, Exception):\n    pass\n",
        "broad",
    ),
    ("R11", "apps/runs/views.py", "try:\n    x()\nexcept:\n    pass\n", "broad"),
    (
        "R11",
        "apps/runs/views.py",
        "import contextlib\nwith contextlib.suppress(BaseException):\n    x()\n",
        "broad",
    ),
    (
        "R11",
        "apps/common/loops.py",
        "try:\n    x()\nexcept Exception:\n    pass\n" * 2,
        "broad",
    ),
]


@pytest.fixture
def tree(tmp_path):
    for path, text in CLEAN.items():
        write(tmp_path, path, text)
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("name", rules.RULES)
def test_clean_tree_passes(tree, name):
    assert rules.RULES[name](tree) == []


@pytest.mark.parametrize(
    ("name", "path", "text", "said"),
    PLANTED,
    ids=[f"{row[0]}-{n}" for n, row in enumerate(PLANTED)],
)
def test_planted_violation_is_caught(tree, name, path, text, said):
    write(tree, path, text)

    (violation,) = rules.RULES[name](tree)

    assert violation.startswith(path.rsplit("/", 1)[0].split("/templates")[0][:9])
    assert said in violation


def test_every_rule_has_a_plant():
    assert {row[0] for row in PLANTED} == set(rules.RULES)
