"""Verification: boots the very artifact in the store, runs its checks in it, and proves what running it changed.

`run.verify` is what a bake calls, with a `request.VerifyRequest`; `report.render` is the text of a failure;
`shell.look` is `factory boot`. Nothing is imported here: `plugin` is loaded by a process of its own.
"""
