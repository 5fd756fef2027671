"""Write the state diagrams and the OpenAPI snapshot again, on purpose.

Run `python -m tests.house.regenerate` and read the difference before committing it.
"""

import importlib
import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    importlib.import_module("polar_site")
    importlib.import_module("django").setup()
    generated = importlib.import_module("tests.house.generated")
    generated.STATES.mkdir(parents=True, exist_ok=True)
    drawn = generated.diagrams()
    for stale in generated.STATES.glob("*.md"):
        if stale.name not in drawn:
            stale.unlink()
    for name, text in drawn.items():
        (generated.STATES / name).write_text(text)
    generated.OPENAPI.write_text(generated.openapi())
    sys.stdout.write(f"{len(drawn)} diagrams and {generated.OPENAPI.name} written\n")


if __name__ == "__main__":
    main()
