-- Which agent of a source is listened to, which other one calls with the same key, and how far its clock is off.

alter table source
    -- The process that is listened to; where it runs, and on which host.
    add column agent_instance text,
    add column agent_place    text,
    add column agent_host     text,
    -- The last other one, when it called first and last, and since when both are known to live.
    add column rival_instance text,
    add column rival_host     text,
    add column rival_since    timestamptz,
    add column rival_seen_at  timestamptz,
    add column cloned_at      timestamptz,
    -- The agent's clock less the gateway's.
    add column clock_ahead_ms bigint;
