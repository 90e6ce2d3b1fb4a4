"""The same tasks on each system. A worker or a sender imports one of these; each reads its place from the
environment, and offers `send(task, args)`, which returns when the system has acknowledged the message,
`send_many(task, many_args)`, the system's fastest way for many, and `close()`. Systems with delays have
`send_delayed(task, due_s)` as well.
"""
