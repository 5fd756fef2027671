"""What every process of a journey has loaded, before it is told who it is.

Imported once by the server that forks them (see `forks`): it opens no connection and
starts no thread, so a fork has nothing of another's.
"""

import os

import polar_site  # noqa: F401 (puts the fixed SQLite in place before Django)

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
# A witness will be told; that there is one decides already here what a clock does.
os.environ.update({"JOURNEY_LOG": "", "POLAR_WITNESS_DIR": "/nonexistent"})

import django

django.setup()

from tests.journeys import harness  # noqa: E402, F401
