-- Accounts, their keys, and what their calls leave behind.

create table tenant (
    id           text primary key,
    name         text        not null unique,
    -- Quotas (SMC API §5.6), settings of each tenant.
    max_sources  integer     not null default 1000 check (max_sources >= 0),
    max_jobs     integer     not null default 1000 check (max_jobs >= 0),
    max_running  integer     not null default 50 check (max_running >= 0),
    created_at   timestamptz not null default now()
);
comment on table tenant is 'An account; owns everything else. Its row is the lock under which slots are admitted.';

create table access_key (
    id            text primary key,
    tenant        text        not null references tenant (id) on delete cascade,
    secret_sealed bytea       not null,
    active        boolean     not null default true,
    created_at    timestamptz not null default now()
);
create index access_key_tenant on access_key (tenant);

create table signature_nonce (
    access_key text        not null,
    nonce      text        not null,
    seen_at    timestamptz not null default now(),
    primary key (access_key, nonce)
);
create index signature_nonce_seen_at on signature_nonce (seen_at);
comment on table signature_nonce is 'Nonces of verified calls. The primary key is the atomic test-and-set between gateways.';

create table client_token (
    tenant     text        not null references tenant (id) on delete cascade,
    token      text        not null,
    operation  text        not null,
    digest     bytea       not null,
    answer     jsonb       not null,
    created_at timestamptz not null default now(),
    primary key (tenant, operation, token)
);
comment on column client_token.digest is 'SHA-256 of the business parameters: the same token with others is a mismatch.';

create table access_token (
    id          text primary key,
    tenant      text        not null references tenant (id) on delete cascade,
    name        text        not null,
    description text        not null default '',
    code_hash   bytea       not null unique,
    max_count   integer     not null check (max_count > 0),
    registered  integer     not null default 0,
    valid_days  integer     not null,
    expires_at  timestamptz not null,
    disabled_at timestamptz,
    created_at  timestamptz not null default now(),
    constraint access_token_not_overused check (registered <= max_count)
);
create index access_token_tenant on access_token (tenant, created_at desc);
comment on table access_token is 'Activation codes with which agents register. Only the SHA-256 of a code is kept.';

create table deployment_secret (
    name       text primary key,
    sealed     bytea       not null,
    created_at timestamptz not null default now()
);
comment on table deployment_secret is 'Secrets of the deployment as a whole, such as the key of its certificate authority.';
