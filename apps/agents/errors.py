"""What the agents app refuses.

PolarError
  Invalid
    PinBroken        422   a pin leads to a profile that cannot serve
    ToolCallInvalid  422   a model keeps asking for a tool it was not offered
  Denied
    RouteVetoed      403   routing wants something else first
    PlanRefused      403   the plan that this call is a part of was refused
"""

from apps.common.errors import Denied, Invalid


class PinBroken(Invalid):
    """The pinned profile is missing or inactive; pin another one or unpin it."""

    code = "POLAR_PROFILE_PIN_BROKEN"


class ToolCallInvalid(Invalid):
    """This tool was not offered, or its arguments are not an object."""


class RouteVetoed(Denied):
    """Nothing was run: routing wants something else first."""

    code = "POLAR_ROUTE_VETOED"


class PlanRefused(Denied):
    """Nothing was run: the plan that this call is a part of was refused."""

    code = "POLAR_PLAN_REFUSED"
