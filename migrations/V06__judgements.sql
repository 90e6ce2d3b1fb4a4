-- transactional: false
--
-- By which model and which thresholds a verdict was given, what was decided, and what a shadow model says.
--
-- Beside moderation_results and not in it: the API answers without it, and what writes verdicts stays as it is.
-- decision is what the thresholds make of the probability; is_violation of moderation_results is probability >= threshold.

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
CREATE TABLE IF NOT EXISTS judgements (
    message_id          text PRIMARY KEY REFERENCES moderation_results (message_id) ON DELETE CASCADE,
    generation          integer NOT NULL,
    model_version       text NOT NULL,
    threshold           double precision NOT NULL,
    approve_below       double precision NOT NULL,
    reject_from         double precision NOT NULL,
    decision            text NOT NULL CHECK (decision IN ('approve', 'review', 'reject')),
    shadow_version      text,
    shadow_is_violation boolean,
    shadow_probability  double precision CHECK (shadow_probability BETWEEN 0 AND 1),
    shadow_decision     text CHECK (shadow_decision IN ('approve', 'review', 'reject'))
)
$create$)
WHERE to_regclass('judgements') IS NULL;

RESET lock_timeout;
