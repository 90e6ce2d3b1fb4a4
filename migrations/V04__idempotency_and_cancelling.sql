-- transactional: false
--
-- What a client may send twice, take back, and page through.

SET lock_timeout = '200ms';

-- Requests queue behind a statement that waits for its lock: it gives up, and tries again.
CREATE OR REPLACE FUNCTION pg_temp.change(statement text) RETURNS void LANGUAGE plpgsql AS $change$
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '200ms', true);
            EXECUTE statement;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.3 + random());
        END;
    END LOOP;
END
$change$;

CREATE OR REPLACE FUNCTION pg_temp.has_constraint(name text, constraint_name text, containing text DEFAULT '')
RETURNS boolean LANGUAGE sql AS $has$
    SELECT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = to_regclass(name) AND conname = constraint_name
            AND position(containing IN pg_get_constraintdef(oid)) > 0
    )
$has$;

-- A repetition finds everything there, and locks nothing.

-- A submission that was taken back before it had a verdict. Every row that is there satisfies the wider rule.
SELECT pg_temp.change(
    'ALTER TABLE moderation_results DROP CONSTRAINT IF EXISTS moderation_results_status_known,'
    ' ADD CONSTRAINT moderation_results_status_known'
    ' CHECK (status IN (''pending'', ''completed'', ''failed'', ''cancelled''))'
)
WHERE NOT pg_temp.has_constraint('moderation_results', 'moderation_results_status_known', 'cancelled');

-- A page is read from the end of one of these, whatever the table's size. There is none of (item_id, id): a
-- page of an ad in any status is put together from a page of each status.
SELECT pg_temp.change('CREATE INDEX moderation_results_by_status ON moderation_results (status, id)')
WHERE to_regclass('moderation_results_by_status') IS NULL;
SELECT pg_temp.change('CREATE INDEX moderation_results_by_item ON moderation_results (item_id, status, id)')
WHERE to_regclass('moderation_results_by_item') IS NULL;

-- An accepted request under the name that its client gave it. NULL among the tasks is an ad that did not exist.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key         text PRIMARY KEY,
    fingerprint bytea NOT NULL,
    task_ids    integer[] NOT NULL,
    expires_at  timestamptz NOT NULL
);
SELECT pg_temp.change('CREATE INDEX idempotency_keys_expired ON idempotency_keys (expires_at)')
WHERE to_regclass('idempotency_keys_expired') IS NULL;

RESET lock_timeout;
