"""The present state of submissions in a few numbers. Each query reads a bounded number of index entries."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

#: The latest submissions whose outcomes are counted, and the unpublished ones that are counted at most.
LATEST = 1_000
MAX_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of submissions.

    Attributes:
      unpublished: Those whose messages Kafka does not have; :data:`MAX_COUNTED` stands for as many or more.
      oldest_unpublished_s: The age of the one whose lease ends first; 0 without one.
      oldest_pending_s: The age of the oldest pending one; 0 without one.
      latest: The latest :data:`LATEST` ones by status and decision; the decision is empty without a verdict.
      mean_probability: The mean of the verdicts among these; None without a verdict.
    """

    unpublished: int
    oldest_unpublished_s: float
    oldest_pending_s: float
    latest: Mapping[tuple[str, str], int]
    mean_probability: float | None


_OUTBOX = text(
    """
    SELECT (
        SELECT count(*) FROM (
            SELECT FROM moderation_results
            WHERE publish_after IS NOT NULL ORDER BY publish_after LIMIT :max_counted
        ) AS unpublished
    ) AS unpublished, (
        SELECT EXTRACT(EPOCH FROM now() - created_at) FROM moderation_results
        WHERE publish_after IS NOT NULL ORDER BY publish_after LIMIT 1
    ) AS oldest_unpublished_s, (
        SELECT EXTRACT(EPOCH FROM now() - created_at) FROM moderation_results
        WHERE status = 'pending' ORDER BY status, id LIMIT 1
    ) AS oldest_pending_s
    """
)
_LATEST = text(
    """
    WITH latest AS (
        SELECT message_id, generation, status, probability
        FROM moderation_results ORDER BY id DESC LIMIT :latest
    )
    SELECT latest.status, COALESCE(judgement.decision, '') AS decision, count(*) AS number,
        sum(latest.probability) AS probabilities, count(latest.probability) AS verdicts
    FROM latest LEFT JOIN LATERAL (
        SELECT decision FROM judgements
        WHERE message_id = latest.message_id AND generation = latest.generation
        OFFSET 0  -- a look-up for each, never a join that reads the whole table
    ) AS judgement ON true
    GROUP BY 1, 2
    """
)


def read_statistics(connection: Connection) -> Statistics:
    """Read the statistics. It takes milliseconds, however many submissions there are."""
    outbox = connection.execute(_OUTBOX, {"max_counted": MAX_COUNTED}).one()
    rows = connection.execute(_LATEST, {"latest": LATEST}).all()
    verdicts = sum(row.verdicts for row in rows)
    return Statistics(
        outbox.unpublished,
        max(0.0, float(outbox.oldest_unpublished_s or 0)),
        max(0.0, float(outbox.oldest_pending_s or 0)),
        {(row.status, row.decision): row.number for row in rows},
        sum(row.probabilities or 0.0 for row in rows) / verdicts if verdicts else None,
    )
