"""The WSGI entrance."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "polar_site.settings")
application = get_wsgi_application()

from polar_site.startup import prepare  # noqa: E402 (models need the set-up above)

prepare()
