-- Users of an account, what they may do, and temporary keys.

create table ram_user (
    id         text primary key,
    tenant     text        not null references tenant (id) on delete cascade,
    name       text        not null,
    created_at timestamptz not null default now(),
    constraint ram_user_name unique (tenant, name),
    -- What keys and attachments refer to, so that a user's can't be another tenant's.
    unique (tenant, id)
);
comment on table ram_user is 'Users of an account. What they may do is in the policies attached to them; without any, nothing.';

create table ram_policy (
    tenant     text        not null references tenant (id) on delete cascade,
    name       text        not null,
    document   text        not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (tenant, name)
);
comment on column ram_policy.document is 'The policy as it was written; it was parsed before.';

create table ram_attachment (
    tenant  text not null,
    user_id text not null,
    policy  text not null,
    primary key (tenant, user_id, policy),
    foreign key (tenant, user_id) references ram_user (tenant, id) on delete cascade,
    foreign key (tenant, policy) references ram_policy (tenant, name)
);
create index ram_attachment_policy on ram_attachment (tenant, policy);

alter table access_key
    add column user_id        text,
    add column expires_at     timestamptz,
    add column token_hash     bytea,
    add column session_policy text,
    add foreign key (tenant, user_id) references ram_user (tenant, id) on delete cascade,
    add constraint access_key_temporary check (
        (expires_at is not null) = (token_hash is not null)
        and (expires_at is not null) = (id like 'STS.%')
        and (session_policy is null or expires_at is not null));
create index access_key_user on access_key (tenant, user_id);
create index access_key_expires_at on access_key (expires_at) where expires_at is not null;
comment on column access_key.user_id is 'Whose key it is; null is the account itself, which may do everything.';
comment on column access_key.token_hash is 'HMAC-SHA256 of the security token, keyed with the id. Temporary keys only.';
comment on column access_key.session_policy is 'Narrows what the holder may do. Temporary keys only.';
