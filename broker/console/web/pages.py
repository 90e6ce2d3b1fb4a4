"""The pages about queues, workers and actors, the audit and the health. They read the store alone."""

from __future__ import annotations

from typing import Any

from ...process import clock
from .charts import Chart, chart
from .collector import SAMPLES_S
from .looks import Look, NotFound, View
from .measures import problems

#: An older rate is not shown as the present one.
RATE_MS = 60_000
QUANTILES = ("p50", "p95", "p99")


def _chart(look: Look, title: str, unit: str, **series: str) -> Chart:
    since_ms = clock.wall_ms() - SAMPLES_S * 1000
    store = look.console.store
    found = [(label, store.points(name, since_ms)) for label, name in series.items()]
    return chart(title, unit, found)


def _queues(look: Look) -> list[Any]:
    """The queues. A pause is shown at once, and not with the next round."""
    paused = look.console.store.get("paused", {})
    return [{**row, "paused": row["queue"] in paused} for row in look.console.store.get("queues", [])]


def overview(look: Look) -> View:
    """Whether all is well, the last hour, and the queues."""
    store = look.console.store
    queues, workers = _queues(look), store.get("workers", [])
    states: dict[str, int] = {}
    for worker in workers:
        states[worker["state"]] = states.get(worker["state"], 0) + 1
    document = {
        "problems": problems(queues, workers, store.get("findings", [])),
        "queues": queues,
        "workers": states,
        "paused": store.get("paused", {}),
        "charts": [
            _chart(look, "Throughput", "rate", enqueued="total:in_per_s", completed="total:out_per_s"),
            _chart(look, "Failures", "rate", failed="total:failed_per_s"),
            _chart(look, "Time in the queue", "s", p50="total:queue_p50_s", p95="total:queue_p95_s"),
        ],
    }
    return View("overview.html", "overview", "Overview", document)


def queue(look: Look) -> View:
    """A queue with its partitions, its running and its delayed tasks."""
    store, name = look.console.store, look.path["queue"]
    row = next((one for one in _queues(look) if one["queue"] == name), None)
    if row is None:
        raise NotFound(f"There is no queue {name!r}.")
    prefix = f"queue:{name}:"
    document = {
        "queue": row,
        "pause": store.get("paused", {}).get(name),
        "partitions": [one for one in store.get("partitions", []) if one["queue"] == name],
        "running": [one for one in store.get("running", []) if one["queue"] == name],
        "lanes": store.get("lanes", {}).get(name, []),
        "delayed": store.get("delayed", {}).get(name, {"count": row["delayed"], "messages": []}),
        "workers": [
            one for one in store.get("workers", []) if name in one["queues"] and one["state"] != "gone"
        ],
        "charts": [
            _chart(look, "Throughput", "rate", enqueued=f"{prefix}in_per_s", completed=f"{prefix}out_per_s"),
            _chart(look, "Waiting", "count", waiting=f"{prefix}waiting"),
            _chart(look, "Dead letters", "count", dead=f"{prefix}dead"),
        ],
    }
    return View("queue.html", "queues", name, document)


def queues(look: Look) -> View:
    """All queues."""
    store = look.console.store
    document = {"queues": _queues(look), "paused": store.get("paused", {})}
    return View("queues.html", "queues", "Queues", document)


def workers(look: Look) -> View:
    """All workers of the last hour, and what they run."""
    state = look.get("state")
    rows = look.console.store.get("workers", [])
    order = ("stuck", "silent", "busy", "idle", "gone")
    counts = {name: sum(row["state"] == name for row in rows) for name in order}
    shown = [row for row in rows if state is None or row["state"] == state]
    shown.sort(key=lambda row: (order.index(row["state"]), row["worker"]))
    ids = {row["worker"] for row in shown}
    running = [row for row in look.console.store.get("running", []) if row["worker"] in ids]
    running.sort(key=lambda row: -row["for_s"])
    document = {"workers": shown, "counts": counts, "state": state, "running": running[:200]}
    return View("workers.html", "workers", "Workers", document)


def worker(look: Look) -> View:
    """One worker: what it runs, its processor time and its memory."""
    store, name = look.console.store, look.get("id")
    row = next((one for one in store.get("workers", []) if one["worker"] == name), None)
    if row is None:
        raise NotFound(f"No worker {name!r} has reported within the last hour.")
    prefix = f"worker:{name}:"
    document = {
        "worker": row,
        "running": [one for one in store.get("running", []) if one["worker"] == name],
        "charts": [
            _chart(look, "Processor", "share", cores=f"{prefix}cpu"),
            _chart(look, "Memory", "bytes", resident=f"{prefix}rss"),
        ],
    }
    return View("worker.html", "workers", str(name), document)


def actors(look: Look) -> View:
    """All actors: their runs since the boots of their workers."""
    store = look.console.store
    rows = [{**row, "per_s": _rate(look, row["actor"])} for row in store.get("actors", [])]
    document = {"actors": rows, "history": look.console.store.get("history", {})}
    return View("actors.html", "actors", "Actors", document)


def _rate(look: Look, actor: str) -> float | None:
    """The runs of an actor a second, by the last two reports of its workers; None before those."""
    since_ms = clock.wall_ms() - RATE_MS
    ended = [
        look.console.store.points(f"actor:{actor}:{name}_per_s", since_ms) for name in ("succeeded", "failed")
    ]
    return sum(points[-1][1] for points in ended if points) if any(ended) else None


def actor(look: Look) -> View:
    """One actor: rates, durations, failures by error, and its slowest runs."""
    store, name = look.console.store, look.get("name")
    row = next((one for one in store.get("actors", []) if one["actor"] == name), None)
    if row is None:
        raise NotFound(f"No actor {name!r} has run within the last hour.")
    prefix = f"actor:{name}:"
    errors: list[dict[str, Any]] = [
        {"error_type": error, "count": count} for error, count in row["errors"].items()
    ]
    errors.sort(key=lambda one: -one["count"])
    slowest = store.query(
        "SELECT message_id, queue, kind, attempt, at_ms, worker, run_s, queue_s FROM event"
        " WHERE actor = ? AND at_ms >= ? AND run_s IS NOT NULL ORDER BY run_s DESC LIMIT 10",
        (name, clock.wall_ms() - SAMPLES_S * 1000),
    )
    document = {
        "actor": row,
        "errors": errors,
        "slowest": slowest,
        "charts": [
            _chart(
                look, "Runs", "rate", succeeded=f"{prefix}succeeded_per_s", failed=f"{prefix}failed_per_s"
            ),
            _chart(look, "Run time", "s", **{p: f"{prefix}run_{p}_s" for p in QUANTILES}),
            _chart(look, "Time in the queue", "s", **{p: f"{prefix}queue_{p}_s" for p in QUANTILES}),
        ],
    }
    return View("actor.html", "actors", str(name), document)


def audit(look: Look) -> View:
    """Every change and every look at arguments: who, when, what, why, and what became of it."""
    store = look.console.store
    rows: list[dict[str, Any]] = [dict(row) for row in look.console.audit.rows()]
    for one in store.get("resolutions", []):
        rows.append(
            {
                "at_ms": one["at_ms"], "who": one["by"], "what": one["action"],
                "subject": f"{one['count']} dead letters of {one['queue']}", "why": one["reason"],
                "outcome": one["state"], "source": "dead-letter topic",
            }
        )  # fmt: skip
    for one in store.get("replays", []):
        rows.append(
            {
                "at_ms": one["at_ms"], "who": one["by"], "what": "replay",
                "subject": f"{one['count']} messages of {one['queue']}", "why": one["reason"],
                "outcome": one["state"], "source": "control topic",
            }
        )  # fmt: skip
    for command in store.get("paused", {}).values():
        rows.append(
            {
                "at_ms": command["at_ms"], "who": command["by"], "what": command["kind"],
                "subject": command["target"], "why": command["reason"], "outcome": "in force",
                "source": "control topic",
            }
        )  # fmt: skip
    who, what = look.get("who"), look.get("what")
    actions = sorted({row["what"] for row in rows})
    shown = [
        row for row in rows if (who is None or who in row["who"]) and (what is None or row["what"] == what)
    ]
    shown.sort(key=lambda row: -row["at_ms"])
    document = {"entries": shown[:500], "count": len(shown), "actions": actions, "who": who, "what": what}
    return View("audit.html", "audit", "Audit", document)


def health(look: Look) -> View:
    """What ``doctor`` has found."""
    store = look.console.store
    document = {"findings": store.get("findings", []), "checked": store.get("checked", [])}
    return View("health.html", "health", "Health", document)
