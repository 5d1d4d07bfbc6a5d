-- A client token is one for the whole account, whatever operation it is used for (SMC API §5.7). The primary key, which has the operation
-- too, stays for gateways that still run the version before this one.

delete from client_token as older using client_token as newer
where older.tenant = newer.tenant and older.token = newer.token
  and (older.created_at, older.operation) < (newer.created_at, newer.operation);
create unique index client_token_account on client_token (tenant, token);
