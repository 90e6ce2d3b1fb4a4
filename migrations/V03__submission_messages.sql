-- A submission names its message, counts its redrives, and is its own outbox.
--
-- publish_after IS NULL means that Kafka has the message. Otherwise the relay may publish it from then on; until
-- then whoever set the time is sending it. A row inserted by hand is published by the relay at once.

-- Rows that are already there get an id of their own; Kafka never had them, so a pending one is due.
ALTER TABLE moderation_results ADD COLUMN IF NOT EXISTS message_id text DEFAULT CAST(gen_random_uuid() AS text);
ALTER TABLE moderation_results ADD COLUMN IF NOT EXISTS generation integer NOT NULL DEFAULT 0;
ALTER TABLE moderation_results ADD COLUMN IF NOT EXISTS publish_after timestamptz DEFAULT now();

UPDATE moderation_results SET publish_after = NULL WHERE status <> 'pending' AND publish_after IS NOT NULL;
ALTER TABLE moderation_results ALTER COLUMN message_id SET NOT NULL;

-- A verdict outlives its ad, and a task may name an ad that never was.
ALTER TABLE moderation_results DROP CONSTRAINT IF EXISTS moderation_results_item_id_fkey;

CREATE UNIQUE INDEX IF NOT EXISTS moderation_results_message_id ON moderation_results (message_id);
CREATE INDEX IF NOT EXISTS moderation_results_unpublished ON moderation_results (publish_after)
    WHERE publish_after IS NOT NULL;
