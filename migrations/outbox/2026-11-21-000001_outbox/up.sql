-- Events that this service committed and the broker has not confirmed yet. The relay deletes what was confirmed.
CREATE TABLE outbox (
    -- The order of publishing.
    seq bigserial PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    name text NOT NULL,
    -- By the clock of the service.
    occurred_at timestamptz NOT NULL,
    traceparent text,
    data jsonb NOT NULL,
    -- By the clock of the database: how long the event has been waiting.
    enqueued_at timestamptz NOT NULL DEFAULT now()
);

-- Events that took effect here, one row per queue and event, kept for longer than a copy can be under way.
CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

-- Finds the rows that are old enough to forget.
CREATE INDEX inbox_handled_at ON inbox (consumer, handled_at);
