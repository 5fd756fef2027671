"""Keeps secrets: what is stored here is readable only inside a lease.

Nouns: secret, wrap, key ring, kid, lease, seal.
Hides: the envelope format, key derivation, the check of the ring.
Invariants: plaintext leaves only through `services.lease`, each lease leaves an
event; ciphertext is bound to its row; a key that does not check opens nothing and
overwrites nothing.
"""
