-- By which model and which thresholds a verdict was given, what was decided, and what a shadow model says.
--
-- Beside moderation_results and not in it: the API answers without it, and what writes verdicts stays as it is.
-- decision is what the thresholds make of the probability; is_violation of moderation_results is probability >= threshold.

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
);
