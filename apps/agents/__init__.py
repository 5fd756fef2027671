"""Agents think: profiles, pins, conversations, and turns made of durable steps.

Hides how a turn is advanced. Nouns: profile, pin, conversation, turn, step, delta.
Invariants: a step is a row before and after it happens, so a resumed turn never
repeats a finished step; an answer is written once, with its audit event.
"""
