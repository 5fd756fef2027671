"""Passwords of the suite: the product's hash at a cost that a test can pay."""

from django.contrib.auth.hashers import ScryptPasswordHasher


class CheapScrypt(ScryptPasswordHasher):
    """The same algorithm and the same format, a thousandth of the work."""

    work_factor = 2**4
