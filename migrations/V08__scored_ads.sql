-- transactional: false
--
-- What was scored: a verdict keeps the hash of its ad, an edit keeps the ad as it was and hands it in again.
--
-- A trigger does both, so that every way to edit an ad does: POST /items, whichever release serves it, and an UPDATE
-- by hand.

SET lock_timeout = '200ms';

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

-- NULL for a verdict from before: nobody knows which text it is of.
SELECT pg_temp.change('ALTER TABLE judgements ADD COLUMN ad_hash text')
WHERE NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = CAST('judgements' AS regclass) AND attname = 'ad_hash' AND NOT attisdropped
);

-- An ad with a submission, as it was until an edit or its deletion. A digest keeps each text once.
CREATE TABLE IF NOT EXISTS ad_versions (
    item_id     bigint NOT NULL,
    digest      text NOT NULL,
    seller_id   bigint NOT NULL,
    name        text NOT NULL,
    description text NOT NULL,
    category    integer NOT NULL,
    images_qty  integer NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (item_id, digest)
);

CREATE OR REPLACE FUNCTION keep_edited_ad() RETURNS trigger LANGUAGE plpgsql AS $keep$
BEGIN
    IF EXISTS (SELECT FROM moderation_results WHERE item_id = OLD.id AND status IN ('pending', 'completed')) THEN
        INSERT INTO ad_versions (item_id, digest, seller_id, name, description, category, images_qty)
        VALUES (
            OLD.id, encode(sha256(convert_to(CAST(ROW(OLD.name, OLD.description, OLD.category, OLD.images_qty) AS text), 'UTF8')), 'hex'),
            OLD.seller_id, OLD.name, OLD.description, OLD.category, OLD.images_qty
        )
        ON CONFLICT DO NOTHING;
        -- Once, however often the transaction edits the ad: its rows have one created_at.
        IF TG_OP = 'UPDATE' AND NOT EXISTS (
            SELECT FROM moderation_results WHERE item_id = NEW.id AND status = 'pending' AND created_at = now()
        ) THEN
            INSERT INTO moderation_results (item_id) VALUES (NEW.id);
        END IF;
    END IF;
    RETURN NULL;
END
$keep$;

-- At COMMIT: a submission that is inserted until then is seen.
SELECT pg_temp.change(
    'CREATE CONSTRAINT TRIGGER items_keep_edited_ad AFTER UPDATE ON items DEFERRABLE INITIALLY DEFERRED FOR EACH ROW'
    ' WHEN ((OLD.name, OLD.description, OLD.category, OLD.images_qty)'
    '  IS DISTINCT FROM (NEW.name, NEW.description, NEW.category, NEW.images_qty))'
    ' EXECUTE FUNCTION keep_edited_ad()'
)
WHERE NOT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = CAST('items' AS regclass) AND tgname = 'items_keep_edited_ad'
);
SELECT pg_temp.change(
    'CREATE TRIGGER items_keep_deleted_ad AFTER DELETE ON items FOR EACH ROW EXECUTE FUNCTION keep_edited_ad()'
)
WHERE NOT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = CAST('items' AS regclass) AND tgname = 'items_keep_deleted_ad'
);

RESET lock_timeout;
