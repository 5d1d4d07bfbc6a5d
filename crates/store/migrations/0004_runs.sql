-- What a run holds: its lease, its instance, the agent's assignment, and the image that it delivers.

create table job_lease (
    job_id     text primary key references job (id) on delete cascade,
    run        integer     not null,
    epoch      bigint      not null,
    worker     text        not null,
    expires_at timestamptz not null
) with (fillfactor = 50);
comment on table job_lease is 'Narrow, and without an index on what renewals touch, so that a renewal stays in its page.';

-- No foreign key to job: the resources of a job that is gone must stay findable until they are gone as well.
create table instance (
    id                text primary key,
    tenant            text        not null,
    job_id            text        not null,
    run               integer     not null,
    epoch             bigint      not null,
    provider          text        not null,
    host              text        not null,
    -- Key and certificate of the run's own authority (PEM), sealed.
    authority_sealed  bytea       not null,
    created_at        timestamptz not null default now()
);
create unique index instance_job on instance (job_id);
comment on table instance is 'Written before the resource is created, deleted after it is gone: nothing leaks in between.';

create table assignment (
    job_id         text primary key references job (id) on delete cascade,
    tenant         text        not null,
    source_id      text        not null,
    run            integer     not null,
    epoch          bigint      not null,
    -- A wherry.agent.v1.Assignment.
    message        bytea       not null,
    -- What the agent last said of it.
    agent_state    text        not null default 'assigned',
    failure_code   text,
    failure_message text,
    updated_at     timestamptz not null default now()
);
create index assignment_source on assignment (source_id);

create table image (
    id          text primary key,
    tenant      text        not null references tenant (id) on delete cascade,
    job_id      text        not null,
    source_id   text        not null,
    run         integer     not null,
    epoch       bigint      not null,
    region_id   text        not null,
    name        text        not null,
    state       text        not null default 'creating' check (state in ('creating', 'available', 'deleting')),
    -- Where it lies, as the image store names it.
    location    text        not null default '',
    -- Disks with sizes, root hashes and files, as in the image's own manifest.
    description jsonb       not null default '{}',
    -- When the reconciler last asked for its removal.
    asked_at    timestamptz,
    created_at  timestamptz not null default now(),
    -- One image a run: a second owner of the run goes on with the first one's.
    unique (job_id, run)
);
create index image_tenant on image (tenant, created_at desc, id desc);
