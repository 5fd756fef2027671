"""The ASGI entrance."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "polar_site.settings")
application = get_asgi_application()

from polar_site.startup import prepare  # noqa: E402 (models need the set-up above)

prepare()
