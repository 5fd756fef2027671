#!/usr/bin/env python
"""Every command of Polar. `./polar help` lists them."""

import os
import sys

import polar_site  # noqa: F401 - first: puts the fixed SQLite in place  # isort: skip

from django.core.management import execute_from_command_line  # isort: skip

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "polar_site.settings")
    execute_from_command_line(sys.argv)
