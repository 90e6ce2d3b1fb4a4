-- transactional: false
--
-- What a submission's earlier generations came to: the outcome of one is kept when the next takes its place.
--
-- A trigger keeps it, so that every way to the next generation does: a redrive, the verdict of a dead letter that was
-- put back on its queue, and an UPDATE by hand.

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

-- A repetition finds everything there, and locks nothing.

SELECT pg_temp.change($create$
CREATE TABLE IF NOT EXISTS submission_history (
    task_id       integer NOT NULL REFERENCES moderation_results (id) ON DELETE CASCADE,
    generation    integer NOT NULL,
    status        text NOT NULL,
    is_violation  boolean,
    probability   double precision,
    error_message text,
    processed_at  timestamptz,
    replaced_at   timestamptz NOT NULL DEFAULT now(),
    redriven_by   text,
    reason        text,
    PRIMARY KEY (task_id, generation)
)
$create$)
WHERE to_regclass('submission_history') IS NULL;

CREATE OR REPLACE FUNCTION keep_past_outcome() RETURNS trigger LANGUAGE plpgsql AS $keep$
BEGIN
    INSERT INTO submission_history
        (task_id, generation, status, is_violation, probability, error_message, processed_at)
    VALUES
        (OLD.id, OLD.generation, OLD.status, OLD.is_violation, OLD.probability, OLD.error_message, OLD.processed_at)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$keep$;

-- AFTER with WHEN: a verdict that only ends its own generation pays for one comparison.
SELECT pg_temp.change(
    'CREATE TRIGGER moderation_results_keep_past_outcome AFTER UPDATE ON moderation_results'
    ' FOR EACH ROW WHEN (OLD.generation <> NEW.generation AND OLD.status <> ''pending'')'
    ' EXECUTE FUNCTION keep_past_outcome()'
)
WHERE NOT EXISTS (
    SELECT FROM pg_trigger
    WHERE tgrelid = to_regclass('moderation_results') AND tgname = 'moderation_results_keep_past_outcome'
);

RESET lock_timeout;
