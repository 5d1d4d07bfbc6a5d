-- A server that registers makes a source and uses up a place of an activation code: its agent is an actor too.

alter table audit drop constraint audit_actor_check;
alter table audit add constraint audit_actor_check check (actor in ('tenant', 'operator', 'agent'));
