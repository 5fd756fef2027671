"""Decides and meters: grants, budgets, approvals, halts, and the one pipeline.

`services.call` is the only way to an effect. The `Call` row is the effect
ledger: an effect starts by one conditional UPDATE that spends a single-use
permit, and a non-repeatable effect whose outcome is unknown is never repeated.
"""
