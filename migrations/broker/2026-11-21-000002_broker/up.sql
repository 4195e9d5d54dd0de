-- The in-process transport: what RabbitMQ holds where there is one.
CREATE TABLE messages (
    -- The order within a queue.
    seq bigserial PRIMARY KEY,
    queue text NOT NULL,
    event_id uuid NOT NULL,
    -- The event in its envelope.
    body jsonb NOT NULL,
    -- How often a consumer has taken it.
    deliveries integer NOT NULL DEFAULT 0,
    -- Set when it was put aside for an operator.
    parked_at timestamptz,
    reason text,
    attempts integer,
    CONSTRAINT parked_says_why CHECK (
        (parked_at IS NULL AND reason IS NULL AND attempts IS NULL)
        OR (parked_at IS NOT NULL AND reason IS NOT NULL AND attempts IS NOT NULL)
    )
);

CREATE INDEX messages_waiting ON messages (queue, seq) WHERE parked_at IS NULL;
CREATE INDEX messages_parked ON messages (queue, seq) WHERE parked_at IS NOT NULL;

-- Queues of people who watch. Each lives as long as its watcher's connection, which holds a lock named after it.
CREATE TABLE tails (
    queue text PRIMARY KEY,
    pattern text NOT NULL
);
