-- Places of workers are shared between tenants, and a run whose agent is silent gives its place back.

alter table job drop constraint job_state_check;
alter table job add constraint job_state_check check (state in (
    'ready', 'preparing', 'syncing', 'parked', 'processing', 'cleaning', 'stopped', 'in_error', 'waiting', 'finished', 'expired',
    'deleting'));

alter table job
    -- Since when the agent is silent, over all leases of the run; null while bytes come.
    add column silent_since timestamptz,
    -- Times that the run was parked since it last made progress.
    add column parks        integer not null default 0;

-- Reconnecting agents look for what waits for them.
create index job_parked on job (source_id) where state = 'parked';

alter table timer drop constraint timer_kind_check;
alter table timer add constraint timer_kind_check check (kind in ('start', 'expire', 'purge', 'run', 'resume'));

-- The holder is asked to give its place to another tenant, and reads so when it renews.
alter table job_lease add column yields boolean not null default false;
alter table job_lease add column since  timestamptz not null default now();
create index job_lease_yields on job_lease (job_id) where yields;

create table worker (
    id         text        primary key,
    slots      integer     not null check (slots > 0),
    -- Renewed as its leases are: a worker that is silent longer has no places.
    expires_at timestamptz not null
);
comment on table worker is 'The workers that live, with their places: what admission has to give.';
