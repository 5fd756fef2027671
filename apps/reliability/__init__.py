"""Watches and rehearses: health, the home page's proof, and later SLOs and drills."""
