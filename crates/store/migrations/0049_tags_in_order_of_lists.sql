-- Lists narrowed by a tag, in their order: a page and its count from the index alone, however many have the tag.

alter table tag add column created_at timestamptz;
update tag set created_at = resource.created_at
from (select id, created_at from source union all select id, created_at from job union all select id, created_at from workgroup) as resource
where resource.id = resource_id;
alter table tag alter column created_at set not null;
comment on column tag.created_at is 'When its resource was made: what lists are ordered by.';

create index tag_key on tag (tenant, kind, key, created_at desc, resource_id desc) include (value);
drop index tag_value;
