"""The only writers of extensions, and the way to run a tool.

Hides: where each verb lives. Invariants: every verb checks who asks, goes through
the gateway where it changes what may run, and leaves its event.
"""

from apps.extensions.queries import ToolSpec as ToolSpec
from apps.extensions.queries import tools_for as tools_for

from .connecting import Answer as Answer
from .connecting import Asked as Asked
from .connecting import Connected as Connected
from .connecting import ConnectOrder as ConnectOrder
from .connecting import connect_extension as connect_extension
from .connecting import finish_connection as finish_connection
from .disconnecting import disconnect_extension as disconnect_extension
from .executing import Executed as Executed
from .executing import execute_extension as execute_extension
from .installing import NewServer as NewServer
from .installing import Origin as Origin
from .installing import configure_extension as configure_extension
from .installing import install_plugin as install_plugin
from .installing import install_skill as install_skill
from .installing import sync_mcp_server as sync_mcp_server
from .lifecycle import enable_extension as enable_extension
from .lifecycle import remove_extension as remove_extension
from .lifecycle import retrust_extension as retrust_extension
from .lifecycle import rollback_extension as rollback_extension
from .ordering import Order as Order
from .ordering import apply_lifecycle as apply_lifecycle
from .places import place_of_secret as place_of_secret
from .reviewing import Verdict as Verdict
from .reviewing import quarantine as quarantine
from .reviewing import review_extension as review_extension
from .reviewing import supply_risk as supply_risk
from .shipped import sync_shipped_plugin as sync_shipped_plugin
from .stopping import disable_extension as disable_extension
from .stopping import revoke_extension as revoke_extension
from .stopping import stop_extension as stop_extension
from .tools import ToolCallRequest as ToolCallRequest
from .tools import execute_tool as execute_tool
from .tools import foresee as foresee
from .tools import run_tool as run_tool
