-- transactional: false
--
-- A submission names its message, counts its redrives, and is its own outbox.
--
-- publish_after IS NULL means that Kafka has the message. Otherwise the relay may publish it from then on; until
-- then whoever set the time is sending it. A row inserted by hand is published by the relay at once.

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

CREATE OR REPLACE FUNCTION pg_temp.has_column(name text, column_name text) RETURNS boolean LANGUAGE sql AS $has$
    SELECT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass(name) AND attname = column_name AND NOT attisdropped
    )
$has$;

CREATE OR REPLACE FUNCTION pg_temp.has_constraint(name text, constraint_name text, containing text DEFAULT '')
RETURNS boolean LANGUAGE sql AS $has$
    SELECT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = to_regclass(name) AND conname = constraint_name
            AND position(containing IN pg_get_constraintdef(oid)) > 0
    )
$has$;

-- A repetition finds everything there, and locks nothing.

-- Rows that are already there get an id of their own; Kafka never had them, so a pending one is due.
SELECT pg_temp.change(
    'ALTER TABLE moderation_results'
    ' ADD COLUMN IF NOT EXISTS message_id text DEFAULT CAST(gen_random_uuid() AS text),'
    ' ADD COLUMN IF NOT EXISTS generation integer NOT NULL DEFAULT 0,'
    ' ADD COLUMN IF NOT EXISTS publish_after timestamptz DEFAULT now()'
)
WHERE NOT pg_temp.has_column('moderation_results', 'publish_after');

SELECT pg_temp.change(
    'UPDATE moderation_results SET publish_after = NULL WHERE status <> ''pending'' AND publish_after IS NOT NULL'
)
WHERE to_regclass('moderation_results_unpublished') IS NULL;
SELECT pg_temp.change('ALTER TABLE moderation_results ALTER COLUMN message_id SET NOT NULL')
WHERE to_regclass('moderation_results_unpublished') IS NULL;

-- A verdict outlives its ad, and a task may name an ad that never was.
SELECT pg_temp.change('ALTER TABLE moderation_results DROP CONSTRAINT IF EXISTS moderation_results_item_id_fkey')
WHERE pg_temp.has_constraint('moderation_results', 'moderation_results_item_id_fkey');

SELECT pg_temp.change('CREATE UNIQUE INDEX moderation_results_message_id ON moderation_results (message_id)')
WHERE to_regclass('moderation_results_message_id') IS NULL;
SELECT pg_temp.change(
    'CREATE INDEX moderation_results_unpublished ON moderation_results (publish_after) WHERE publish_after IS NOT NULL'
)
WHERE to_regclass('moderation_results_unpublished') IS NULL;

RESET lock_timeout;
