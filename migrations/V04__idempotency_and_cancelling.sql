-- What a client may send twice, take back, and page through.

-- A submission that was taken back before it had a verdict. Every row that is there satisfies the wider rule.
ALTER TABLE moderation_results DROP CONSTRAINT IF EXISTS moderation_results_status_known;
ALTER TABLE moderation_results ADD CONSTRAINT moderation_results_status_known
    CHECK (status IN ('pending', 'completed', 'failed', 'cancelled'));

-- A page is read from the end of one of these, whatever the table's size. There is none of (item_id, id): a
-- page of an ad in any status is put together from a page of each status.
CREATE INDEX IF NOT EXISTS moderation_results_by_status ON moderation_results (status, id);
CREATE INDEX IF NOT EXISTS moderation_results_by_item ON moderation_results (item_id, status, id);

-- An accepted request under the name that its client gave it. NULL among the tasks is an ad that did not exist.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key         text PRIMARY KEY,
    fingerprint bytea NOT NULL,
    task_ids    integer[] NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS idempotency_keys_expired ON idempotency_keys (expires_at);
