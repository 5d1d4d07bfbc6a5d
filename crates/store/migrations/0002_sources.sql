-- Migration sources: one server each, known by the key of its agent.

create table source (
    id                 text primary key,
    tenant             text        not null references tenant (id) on delete cascade,
    name               text        not null,
    description        text        not null,
    -- DER of the agent's public key (SubjectPublicKeyInfo): the identity of the source.
    public_key         bytea       not null unique,
    access_token       text references access_token (id) on delete set null,
    agent_version      text        not null,
    architecture       text        not null,
    platform           text        not null,
    kernel_level       integer     not null default 1,
    system_info        jsonb       not null default '{}',
    heartbeat_secs     integer     not null default 30,
    last_seen_at       timestamptz not null default now(),
    -- What the agent complains of, if anything.
    failure_code       text,
    failure_message    text,
    deleting           boolean     not null default false,
    created_at         timestamptz not null default now(),
    unique (tenant, name)
);
create index source_tenant on source (tenant, created_at desc, id desc);

create table source_disk (
    source_id  text     not null references source (id) on delete cascade,
    index      smallint not null check (index between 0 and 16),
    path       text     not null,
    size_bytes bigint   not null check (size_bytes >= 0),
    used_bytes bigint check (used_bytes >= 0),
    primary key (source_id, index)
);
