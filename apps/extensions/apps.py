from django.apps import AppConfig


class ExtensionsConfig(AppConfig):
    """Runs what is not ours to write, and what is, under the same rules."""

    name = "apps.extensions"
    label = "extensions"

    def ready(self) -> None:
        # Models exist only now, so these cannot be imported above.
        from . import ports
        from .adapters.native import NativeRuntime
        from .engine import builtin

        ports.plug_runtime(ports.Transport.NATIVE, NativeRuntime())
        for tool in builtin.TOOLS:
            ports.native_tools.register(tool)
