-- Messages on their way to NATS, and those that nobody could read.

create table outbox (
    id         uuid primary key,
    -- A domain::Message.
    message    jsonb       not null,
    -- Trace context of the call that caused it.
    headers    jsonb       not null default '{}',
    created_at timestamptz not null default now()
);
create index outbox_order on outbox (created_at, id);

create table dead_letter (
    id         bigint generated always as identity primary key,
    subject    text        not null,
    payload    bytea       not null,
    headers    jsonb       not null default '{}',
    reason     text        not null,
    created_at timestamptz not null default now()
);
