-- Regions, VPCs and vSwitches that the operator has configured for tenants. A gateway's own region is every tenant's, without a row.

create table region (
    tenant     text        not null references tenant (id) on delete cascade,
    id         text        not null,
    created_at timestamptz not null default now(),
    primary key (tenant, id)
);

create table vpc (
    id         text primary key,
    tenant     text        not null references tenant (id) on delete cascade,
    region_id  text        not null,
    created_at timestamptz not null default now()
);
create index vpc_tenant on vpc (tenant, id);

create table vswitch (
    id            text primary key,
    tenant        text        not null references tenant (id) on delete cascade,
    vpc           text        not null references vpc (id) on delete cascade,
    -- The address under which workers' receivers are reached from this network; empty for the worker's own.
    receiver_host text        not null default '',
    created_at    timestamptz not null default now()
);
create index vswitch_tenant on vswitch (tenant, id);
create index vswitch_vpc on vswitch (vpc);
create index job_vswitch on job (vswitch_id) where vswitch_id <> '';
