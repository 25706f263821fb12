-- What has been applied. Both ways of installing write it, so that each knows of the other.

create schema if not exists storage_cleanup;
comment on schema storage_cleanup is 'Storage Cleanup: removes the render outputs that nobody saved.';
revoke all on schema storage_cleanup from public;

create table if not exists storage_cleanup.migration (
    number      integer primary key,
    name        text not null,
    applied_at  timestamptz not null default clock_timestamp()
);
