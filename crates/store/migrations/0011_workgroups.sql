-- Workgroups: sources that are migrated together. A source is in one at most.

create table workgroup (
    id          text primary key,
    tenant      text        not null references tenant (id) on delete cascade,
    name        text        not null,
    description text        not null default '',
    created_at  timestamptz not null default now()
);
create index workgroup_tenant on workgroup (tenant, created_at desc, id desc);
create trigger workgroup_forget_tags after delete on workgroup for each row execute function forget_tags();

alter table source add column workgroup_id text references workgroup (id) on delete set null;
create index source_workgroup on source (workgroup_id) where workgroup_id is not null;

-- Quotas (SMC API §5.6).
alter table tenant
    add column max_workgroups        integer not null default 50 check (max_workgroups >= 0),
    add column max_workgroup_sources integer not null default 50 check (max_workgroup_sources >= 0);
