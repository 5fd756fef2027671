"""Talking to people: accounts, and the web chat.

Hides: how a streamed answer reaches an open page.
Nouns: account. Invariants: a person reads and writes only conversations of their
own workspaces; a paused account accepts no message; a stream only reads.
"""
