"""The same tasks on each system. A worker or a sender imports one of these; each knows its place from the
environment, and offers `send(task, args)`, which returns when the system says that it has the message,
`send_many(task, many_args)`, the fastest way it has for many, and `close()`.
Those that can delay have `send_delayed(task, due_s)` as well.
"""
