-- How many calls a tenant may make at each gateway (Throttling.User, Throttling.Api).

alter table tenant
    add column calls_per_second           integer not null default 500 check (calls_per_second > 0),
    add column operation_calls_per_second integer not null default 200 check (operation_calls_per_second > 0);
