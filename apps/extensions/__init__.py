"""Skills, MCP servers and plugins: what they offer, and whether they may.

Nouns: extension, capability, version, review, tool, alias.
Hides: where a tool's code lives and how it is run.
Invariants: nothing runs unless the stored definition is the reviewed one; a tool
runs only through the gateway, with a permit; unknown risk is never offered.
"""
