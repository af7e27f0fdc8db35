"""The catalog: `.factory/catalog.db`, the memory of what was baked, from what, and how it went.

`database` opens it, `schema` says its tables, `record` keeps it and images.lock in step, `events` notes runs, tasks
and checks, `lookups` answers, `pending` asks cheaply whether a crash left something open. Only files in this folder
know SQLite; importing this package alone loads none of it, since a bake with nothing to do must not pay for that.
"""
