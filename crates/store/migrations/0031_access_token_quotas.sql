-- Activation codes are bounded in number, uses and validity, for each tenant (SMC API §5.6).

alter table tenant
    add column max_access_tokens     integer not null default 1000 check (max_access_tokens >= 0),
    add column max_access_token_uses integer not null default 1000 check (max_access_token_uses >= 1),
    add column max_access_token_days integer not null default 90 check (max_access_token_days >= 1);
