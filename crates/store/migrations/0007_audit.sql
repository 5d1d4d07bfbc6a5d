-- Who changed what: one row for each call that changes something.

create table audit (
    seq        bigint generated always as identity primary key,
    at         timestamptz not null default now(),
    actor      text        not null check (actor in ('tenant', 'operator')),
    -- No foreign keys: what was done stays written when the tenant, the key or the user is gone.
    tenant     text,
    access_key text        not null default '',
    user_name  text        not null default '',
    -- The caller's address; of an operator, `uid:` and the number.
    origin     text        not null,
    request_id text        not null,
    operation  text        not null,
    -- Ids that the call named, and those that its answer gave.
    resources  text[]      not null default '{}',
    -- `OK` or a code; null until the call has ended.
    outcome    text
);
create index audit_tenant on audit (tenant, seq);
create index audit_at on audit (at);
comment on table audit is 'Written before a call is carried out and completed behind it: no change without a row.';
