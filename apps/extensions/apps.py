from django.apps import AppConfig


class ExtensionsConfig(AppConfig):
    """Runs what is not ours to write, and what is, under the same rules."""

    name = "apps.extensions"
    label = "extensions"

    def ready(self) -> None:
        # Models exist only now, so these cannot be imported above.
        from apps.vault import ports as vault

        from . import ports, services
        from .adapters import sandbox
        from .adapters.mcp import McpRuntime
        from .adapters.native import NativeRuntime
        from .adapters.oauth import OAuthClient
        from .adapters.package import TextRuntime
        from .adapters.scripts import ScriptRuntime
        from .engine import builtin

        ports.isolations.plug("sandbox", sandbox.isolation)
        ports.plug_runtime(ports.Transport.NATIVE, NativeRuntime())
        ports.plug_runtime(ports.Transport.SCRIPT, ScriptRuntime())
        ports.plug_runtime(ports.Transport.TEXT, TextRuntime())
        ports.authorizers.plug("oauth", OAuthClient)
        mcp = McpRuntime()
        ports.plug_runtime(ports.Transport.STDIO, mcp)
        ports.plug_runtime(ports.Transport.HTTP, mcp)
        vault.plug_places(services.place_of_secret)
        for tool in builtin.TOOLS:
            ports.native_tools.register(tool)
