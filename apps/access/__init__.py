"""Who is who: workspaces, users, principals, roles and tokens.

Every read made for a request is narrowed by `.visible_to(principal)`. A token
is stored only as a hash and looked up on every request, so that a revocation
holds at once in every process.
"""
