-- Replication jobs: what was asked (intent), what was observed, and the state that follows.

create table job (
    id                     text primary key,
    tenant                 text        not null references tenant (id) on delete cascade,
    source_id              text        not null references source (id),
    region_id              text        not null,
    name                   text        not null,
    description            text        not null default '',
    target_type            text        not null default 'Image',
    image_name             text        not null,
    net_mode               integer     not null default 0,
    vswitch_id             text        not null default '',
    vpc_id                 text        not null default '',
    replication_parameters text        not null default '',
    priority               integer     not null default 0,

    -- Intent: written by the API, with a version that only goes up.
    intent                 text        not null default 'rest' check (intent in ('rest', 'run', 'stop', 'delete')),
    intent_version         bigint      not null default 0,

    -- State: written by the transition statement only.
    state                  text        not null default 'ready' check (state in (
        'ready', 'preparing', 'syncing', 'processing', 'cleaning', 'stopped', 'in_error', 'waiting', 'finished', 'expired',
        'deleting')),
    state_since            timestamptz not null default now(),
    run                    integer     not null default 0,
    -- The highest epoch ever granted, over all runs.
    epoch                  bigint      not null default 0,
    queued_at              timestamptz,
    -- A running job with admitted_at set holds one of its tenant's slots.
    admitted_at            timestamptz,
    -- Trace context of what started it, for the message that its admission sends.
    start_headers          jsonb       not null default '{}',
    -- When the reconciler last asked for it again.
    asked_at               timestamptz,
    failure_code           text,
    failure_message        text,
    -- Leases lost since durable progress was last made.
    leases_lost            integer     not null default 0,

    -- Observed: written by the lease holder with its epoch.
    observed               jsonb       not null default '{}',
    bytes_durable          bigint      not null default 0,
    bytes_total            bigint      not null default 0,
    instance_id            text,
    image_id               text,

    created_at             timestamptz not null default now(),
    started_at             timestamptz,
    ended_at               timestamptz,
    scheduled_start_at     timestamptz,
    valid_until            timestamptz not null,

    constraint job_slot_only_while_running check (
        admitted_at is null or state in ('preparing', 'syncing', 'processing', 'cleaning'))
);
create index job_tenant on job (tenant, created_at desc, id desc);
create unique index job_name on job (tenant, name) where state <> 'deleting';
create unique index job_unfinished_of_source on job (source_id) where state not in ('finished', 'deleting');
create index job_source on job (source_id, created_at desc);
create index job_slots on job (tenant) where admitted_at is not null;
create index job_queue on job (tenant, priority desc, queued_at) where state = 'preparing' and admitted_at is null;

create table job_disk (
    job_id   text     not null references job (id) on delete cascade,
    index    smallint not null check (index between 0 and 16),
    size_gib integer  not null check (size_gib > 0),
    primary key (job_id, index)
);

create table job_event (
    seq        bigint generated always as identity primary key,
    job_id     text        not null,
    tenant     text        not null,
    at         timestamptz not null default now(),
    event      text        not null,
    from_state text        not null,
    to_state   text        not null,
    run        integer     not null,
    epoch      bigint      not null,
    actor      text        not null,
    detail     text        not null default ''
);
create index job_event_job on job_event (job_id, seq);
comment on table job_event is 'The history of every job. Outlives the job, so that what happened can still be read.';

create table timer (
    job_id text        not null references job (id) on delete cascade,
    kind   text        not null check (kind in ('start', 'expire', 'purge')),
    due_at timestamptz not null,
    primary key (job_id, kind)
);
create index timer_due on timer (due_at);
