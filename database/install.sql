-- Storage Cleanup: ledger, guard and worker role.
--
-- Run the whole file as `postgres`, in Supabase's SQL editor or with psql. Running it again changes nothing.
-- With psql: psql -v ON_ERROR_STOP=1 "$ADMIN_DATABASE_URL" -f database/install.sql, so that an error is the last line.
-- It needs public.render_jobs, public.user_assets and Supabase's storage schema; uninstall.sql takes it back.
--
-- For up to about 100,000 rows in each of the two tables: all of it is one transaction, and whoever writes to them
-- waits meanwhile. With more, use `make install-database`, which stops nobody; each knows what the other has done.
--
-- Made by `make database/install.sql` from the files beside it. Change those.

begin;
set local lock_timeout = '10s';
set local client_min_messages = warning;
select pg_advisory_xact_lock(hashtext('storage_cleanup.install'));

-- ---------------------------------------------------------------------------------------------------------------
-- checks.sql

-- Suitability. Asked before anything is installed (as a function of the session) and in every preflight.

-- Why these two tables can't be guarded: a code and a sentence a reason; no row when they can. Reads the catalogue only.
create or replace function pg_temp.unsuitable() returns table (code text, sentence text)
language sql stable set search_path = ''
as $$
    with relation as (
        select oid, relkind, format('public.%I', relname) as name
        from pg_class
        where relnamespace = to_regnamespace('public') and relname in ('render_jobs', 'user_assets')
    ),
    field as (      -- what the functions read, and of which types
        select relation.name as of_table, relation.oid as relation, wanted.name, wanted.types, attnum, attnotnull, atttypid::regtype::text as type
        from (values ('public.render_jobs', 'id', array['uuid']), ('public.render_jobs', 'status', null),
                     ('public.render_jobs', 'output_url', null), ('public.render_jobs', 'created_at', null),
                     ('public.user_assets', 'id', null), ('public.user_assets', 'metadata', array['jsonb', 'json']))
             as wanted (of_table, name, types)
        join relation on relation.name = wanted.of_table and relkind = 'r'
        left join pg_attribute on attrelid = relation.oid and attname = wanted.name and not attisdropped
    )
    select 'table_kind', format('%s is %s, and Storage Cleanup can guard an ordinary table only', name, case relkind
               when 'v' then 'a view' when 'm' then 'a materialized view' when 'f' then 'a foreign table'
               when 'p' then 'partitioned' else 'no table' end)
    from relation where relkind <> 'r'
    union all
    select 'inheritance', format('%s has a child, %s, whose rows pass by its triggers: Storage Cleanup can guard an ordinary table only',
                                 name, inhrelid::regclass)
    from relation join pg_inherits on inhparent = oid where relkind = 'r'
    union all
    select 'inheritance', format('%s is a child or partition of %s: Storage Cleanup can guard an ordinary table only',
                                 name, inhparent::regclass)
    from relation join pg_inherits on inhrelid = oid
    union all
    select 'columns', format('%s has no column %s, which Storage Cleanup reads', of_table, name) from field where attnum is null
    union all
    select 'columns', format('%s.%s is of type %s, and must be %s', of_table, name, type, types[1])
    from field where type <> all (types)
    union all
    select 'row_id', format('%s.%s may be null, and must name a row', of_table, name) from field where name = 'id' and not attnotnull
    union all
    select 'row_id', format('%s.%s has neither a primary key nor a unique index of its own', of_table, name)
    from field
    where name = 'id' and attnum is not null
      and not exists (select from pg_index
                      where indrelid = relation and indisunique and indisvalid and indimmediate and indpred is null
                        and indnkeyatts = 1 and indkey[0] = attnum)
$$;

-- What has to be so before anything is changed.

do $$
declare
    reasons text;
begin
    if to_regclass('public.render_jobs') is null or to_regclass('public.user_assets') is null then
        raise exception 'public.render_jobs and public.user_assets must exist before Storage Cleanup is installed';
    end if;
    if exists (select from pg_class
               where oid in ('public.render_jobs'::regclass, 'public.user_assets'::regclass)
                 and not pg_has_role(current_user, relowner, 'usage'))
       or not has_database_privilege(current_database(), 'create')
    then
        raise exception '% may not install Storage Cleanup: connect as the owner of public.render_jobs and '
            'public.user_assets, on Supabase postgres (ADMIN_DATABASE_URL, not DATABASE_URL)', current_user;
    end if;
    if to_regclass('storage.objects') is null then
        raise exception 'storage.objects is missing: this database is not a Supabase project''s';
    end if;
    reasons := (select string_agg(sentence, '; ') from pg_temp.unsuitable());
    if reasons is not null then
        raise exception '%', reasons;
    end if;
    if to_regproc('storage_cleanup.schema_version') is not null and to_regclass('storage_cleanup.migration') is null then
        raise exception 'the schema storage_cleanup that is there is older than this release can bring up to date: '
            'run the uninstall.sql that came with it first';
    end if;
    if to_regclass('storage_cleanup.migration') is not null then
        select string_agg(format('%s (%s)', number, name), ', ' order by number) into reasons
        from storage_cleanup.migration
        where (number, name) not in (values (0, ''), (1, 'ledger'));
        if reasons is not null then
            raise exception 'this database has a migration that this release doesn''t know, %: install the release that it is from',
                reasons;
        end if;
    end if;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- migration_table.sql

-- What has been applied. Both ways of installing write it, so that each knows of the other.

create schema if not exists storage_cleanup;
comment on schema storage_cleanup is 'Storage Cleanup: removes the render outputs that nobody saved.';
revoke all on schema storage_cleanup from public;

create table if not exists storage_cleanup.migration (
    number      integer primary key,
    name        text not null,
    applied_at  timestamptz not null default clock_timestamp()
);

-- ---------------------------------------------------------------------------------------------------------------
-- migrations/0001_ledger.sql

do $migration$
begin
    if not exists (select from storage_cleanup.migration where number = 1) then
        execute $sql$
-- What the system remembers.

create table storage_cleanup.run (
    id             uuid primary key default gen_random_uuid(),
    started_at     timestamptz not null default clock_timestamp(),
    finished_at    timestamptz,
    status         text not null default 'running'
                   check (status in ('running', 'succeeded', 'partial', 'failed', 'skipped')),
    trigger        text not null,
    dry_run        boolean not null,
    options        jsonb not null,       -- what was asked for: phases, max_age_minutes, max_deletions, override
    scope          jsonb not null,       -- what may be touched: origin and buckets
    counted_assets bigint,               -- highest size of the reference set while this run was judged
    saved_assets   bigint,               -- the same, once the run has been found good: see most_saved
    override_of    uuid,                 -- the plan that this run carried out
    summary        jsonb
);
create index run_by_start on storage_cleanup.run (started_at desc);
create index run_found_good on storage_cleanup.run (started_at desc) where not dry_run and saved_assets is not null;
create index run_unfinished on storage_cleanup.run (id) where status = 'running';

-- The ledger: a row for each claim of a job, appended and never used again, so that a name that is rendered anew gets a claim of
-- its own. No foreign keys: the job is about to go, and rows are written in bulk.
create table storage_cleanup.deletion (
    id              bigint generated always as identity,
    job_id          uuid not null,
    run_id          uuid,
    state           text not null
                    check (state in ('claimed', 'file_deleted', 'done', 'released')),
    bucket_id       text,
    object_name     text,
    object          bigint,               -- the object's hash: storage_cleanup.hash('bucket/name')
    bare            bigint,               -- the hash of its name in whichever bucket
    version         text,                 -- which upload it was: storage_cleanup.version()
    bytes           bigint not null default 0,
    attempts        integer not null default 0,
    last_error      text,
    job             jsonb,                -- the row of render_jobs as it was claimed, without its very long values
    completed_at    timestamptz,          -- the candidate's, for when the claim is given back
    claimed_at      timestamptz not null default clock_timestamp(),
    attempted_at    timestamptz,          -- when Storage was last asked to remove the file
    quiet_at        timestamptz,          -- until then Storage may be at work on a request whose end nobody has seen
    updated_at      timestamptz not null default clock_timestamp(),
    primary key (job_id, id)              -- the only index that a look for a job's claims can take, whatever the statistics say
);
-- Unfinished work only, so it stays small however long the history grows. It is read by plain index scans alone: they mark
-- the entries of what is finished, which bitmap scans would read again and again until the next vacuum.
create unique index deletion_one_a_job on storage_cleanup.deletion (job_id) where state in ('claimed', 'file_deleted');
create index deletion_unfinished on storage_cleanup.deletion (state, job_id)
    where state in ('claimed', 'file_deleted');
-- The history, too: an asset may name a file that has gone.
create index deletion_object on storage_cleanup.deletion (object) where state in ('claimed', 'file_deleted', 'done');
create index deletion_bare on storage_cleanup.deletion (bare) where state in ('claimed', 'file_deleted');
create index deletion_finished on storage_cleanup.deletion (updated_at)
    where state in ('done', 'released');

-- Completed jobs that nobody has been seen to save. A superset of the orphans: each is checked before it is claimed.
create table storage_cleanup.candidate (
    job_id        uuid primary key,
    since         timestamptz not null,   -- it is looked at when this is old enough: completed_at, or later
    completed_at  timestamptz not null,   -- its age counts from here: when the trigger saw it complete with this URL
    has_file      boolean not null,
    reason        text,                   -- why it was kept when it was last looked at
    unsaved_at    timestamptz,            -- when an asset that had kept it was last seen to let it go
    out_of_scope  bigint                  -- the scope (its hash) of a run for which its URL was no object's; it waits for another
);
create index candidate_by_age on storage_cleanup.candidate (has_file, since, job_id);
create index candidate_out_of_scope on storage_cleanup.candidate (out_of_scope) where out_of_scope is not null;
create index candidate_unsaved on storage_cleanup.candidate (unsaved_at) where unsaved_at is not null;

-- Jobs that an asset has let go, and when; the next run takes them for candidates. Only ever added to by the application's
-- transactions, without a key: two of them must not wait for each other at a candidate.
create table storage_cleanup.unsaved (
    job_id  uuid not null,
    at      timestamptz not null default clock_timestamp()
);
create index unsaved_job on storage_cleanup.unsaved (job_id);

-- What a dry run found: an override may delete these jobs and no others.
create table storage_cleanup.plan_job (
    run_id    uuid not null references storage_cleanup.run on delete cascade,
    job_id    uuid not null,
    has_file  boolean not null,
    primary key (run_id, job_id)
);

-- The locks. An object, or a job, is held through the row that its hash names: a fixed number of rows, so that a save puts
-- nothing in place that another save could wait for. Half empty, so that a claim's updates stay on their page.
create table storage_cleanup.lock (
    slot  integer primary key,
    n     bigint not null default 0
) with (fillfactor = 50);
insert into storage_cleanup.lock (slot) select generate_series(0, 8191);

-- Which objects the URL of a job means, under every reading that it allows. Kept here and not in an index on the
-- application's table, so that updates of that table stay cheap.
create table storage_cleanup.holder (
    job_id  uuid not null,
    object  bigint not null
);
create index holder_job on storage_cleanup.holder (job_id);
create index holder_object on storage_cleanup.holder (object);

-- Every UUID in an asset, whether or not a job has that id yet: any of them may name a job. No unique key, here or in the
-- next table: an asset's trigger and a job's could wait for each other at it.
create table storage_cleanup.mention (
    source   text not null,               -- the row that says so: table and id
    id       uuid not null,
    is_save  boolean not null             -- in the place where saves are documented to be: metadata ->> 'render_job_id'
);
create index mention_source on storage_cleanup.mention (source);
create index mention_id on storage_cleanup.mention (id);
create index mention_save on storage_cleanup.mention (is_save) where is_save;

-- Which objects an asset needs: those of the jobs that it names, as their URLs were at that moment and at each change since,
-- and those that its own texts may mean. It outlives the job.
create table storage_cleanup.reference (
    source  text not null,
    object  bigint not null,
    job_id  uuid                          -- the job through which; NULL: the asset says so itself
);
create index reference_source on storage_cleanup.reference (source);
create index reference_object on storage_cleanup.reference (object);

-- Further columns of the application's that may name a file or a job, by table: see protect.
create table storage_cleanup.place (
    of_table  regclass primary key,
    columns   text[] not null,
    key       text[] not null             -- the columns of its primary key
);

-- When everything was last compared, and what the triggers and tables were like then; and how far the comparison has come that
-- is at work: one row.
create table storage_cleanup.comparison (
    singleton    boolean primary key default true check (singleton),
    last_at      timestamptz,             -- NULL: what was there before the triggers hasn't been looked at
    fingerprint  text,
    at_work_on   text,                    -- the fingerprint when it began; NULL: none is at work
    began_in     xid8,                    -- what transactions from this one on have written may have moved
    step         integer not null default 1,
    block        bigint not null default 0,
    after        text not null default '',
    found        bigint not null default 0
);
insert into storage_cleanup.comparison default values;

-- Claims may be made in transactions that begin after this: an installation that changes functions stops them meanwhile. One row.
create table storage_cleanup.gate (
    singleton  boolean primary key default true check (singleton),
    opens_at   timestamptz not null default '-infinity'
);
insert into storage_cleanup.gate default values;

-- What lay in Storage, a row a day and bucket: the trend that reports draw.
create table storage_cleanup.usage (
    day        date not null,              -- UTC
    bucket_id  text not null,
    objects    bigint not null,
    bytes      bigint not null,
    taken_at   timestamptz not null default clock_timestamp(),
    primary key (day, bucket_id)
);
$sql$;
        insert into storage_cleanup.migration (number, name) values (1, 'ledger');
    end if;
end $migration$;

-- ---------------------------------------------------------------------------------------------------------------
-- gate_closed.sql

-- Waits for claims that are being made, and stops others to the end of this: neither may meet functions of two releases.
lock table storage_cleanup.gate in access exclusive mode;
-- What an interrupted `make install-database` has left shut: 'now' says so below.
update storage_cleanup.gate set opens_at = now() where opens_at = 'infinity';

-- ---------------------------------------------------------------------------------------------------------------
-- functions_before.sql

-- What the functions are before they are made again, and which are others then.
create temporary table storage_cleanup_before on commit drop as
    select oid as function, pg_get_functiondef(oid) as definition
    from pg_proc where pronamespace = 'storage_cleanup'::regnamespace;
create temporary view storage_cleanup_changed as
    select function from storage_cleanup_before where pg_get_functiondef(function) <> definition;

-- Bodies are read against the tables that they name when they are new. Later that would take a lock on each for nothing.
select set_config('check_function_bodies', (not exists (select from storage_cleanup_before))::text, true);

-- ---------------------------------------------------------------------------------------------------------------
-- functions/suitability.sql

-- Suitability. Asked before anything is installed (as a function of the session) and in every preflight.

-- Why these two tables can't be guarded: a code and a sentence a reason; no row when they can. Reads the catalogue only.
create or replace function storage_cleanup.unsuitable() returns table (code text, sentence text)
language sql stable set search_path = ''
as $$
    with relation as (
        select oid, relkind, format('public.%I', relname) as name
        from pg_class
        where relnamespace = to_regnamespace('public') and relname in ('render_jobs', 'user_assets')
    ),
    field as (      -- what the functions read, and of which types
        select relation.name as of_table, relation.oid as relation, wanted.name, wanted.types, attnum, attnotnull, atttypid::regtype::text as type
        from (values ('public.render_jobs', 'id', array['uuid']), ('public.render_jobs', 'status', null),
                     ('public.render_jobs', 'output_url', null), ('public.render_jobs', 'created_at', null),
                     ('public.user_assets', 'id', null), ('public.user_assets', 'metadata', array['jsonb', 'json']))
             as wanted (of_table, name, types)
        join relation on relation.name = wanted.of_table and relkind = 'r'
        left join pg_attribute on attrelid = relation.oid and attname = wanted.name and not attisdropped
    )
    select 'table_kind', format('%s is %s, and Storage Cleanup can guard an ordinary table only', name, case relkind
               when 'v' then 'a view' when 'm' then 'a materialized view' when 'f' then 'a foreign table'
               when 'p' then 'partitioned' else 'no table' end)
    from relation where relkind <> 'r'
    union all
    select 'inheritance', format('%s has a child, %s, whose rows pass by its triggers: Storage Cleanup can guard an ordinary table only',
                                 name, inhrelid::regclass)
    from relation join pg_inherits on inhparent = oid where relkind = 'r'
    union all
    select 'inheritance', format('%s is a child or partition of %s: Storage Cleanup can guard an ordinary table only',
                                 name, inhparent::regclass)
    from relation join pg_inherits on inhrelid = oid
    union all
    select 'columns', format('%s has no column %s, which Storage Cleanup reads', of_table, name) from field where attnum is null
    union all
    select 'columns', format('%s.%s is of type %s, and must be %s', of_table, name, type, types[1])
    from field where type <> all (types)
    union all
    select 'row_id', format('%s.%s may be null, and must name a row', of_table, name) from field where name = 'id' and not attnotnull
    union all
    select 'row_id', format('%s.%s has neither a primary key nor a unique index of its own', of_table, name)
    from field
    where name = 'id' and attnum is not null
      and not exists (select from pg_index
                      where indrelid = relation and indisunique and indisvalid and indimmediate and indpred is null
                        and indnkeyatts = 1 and indkey[0] = attnum)
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/application.sql

-- The application's tables, as they are read here: under names of our own, so that no column of theirs, whatever it is
-- called, is taken for one of ours. PostgreSQL makes each part of the query that asks.

create or replace function storage_cleanup.job()
returns table (id uuid, status text, output_url text, created_at timestamptz, user_id text, fields jsonb)
language sql stable parallel safe
as $$
    select job.*
    from (select null::text as user_id) as absent       -- stands in where the table has no such column
    cross join lateral (
        select each.id, each.status::text, each.output_url::text, each.created_at::timestamptz, user_id::text, to_jsonb(each.*)
        from public.render_jobs as each) as job
$$;

-- How a row of the application is called where it is noted.
create or replace function storage_cleanup.source(of_table oid, id text) returns text
language sql immutable parallel safe
return of_table || ':' || id;

create or replace function storage_cleanup.asset() returns table (source text, fields jsonb)
language sql stable parallel safe
as $$
    select storage_cleanup.source('public.user_assets'::regclass, each.id::text), to_jsonb(each.*) from public.user_assets as each
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/values.sql

-- Reading values. These run inside the application's own statements, so they must never fail, whatever they get.

-- Decodes %20 … %7F, once; no object's name has other characters.
create or replace function storage_cleanup.percent_decoded(path text) returns text
language plpgsql immutable strict parallel safe
as $$
begin
    if position('%' in path) = 0 then
        return path;
    end if;
    return (
        select string_agg(
            case when piece[1] ~ '^%[2-7][0-9A-Fa-f]$' then chr(('x' || substr(piece[1], 2))::bit(8)::integer)
                 else piece[1] end, '' order by place)
        from regexp_matches(path, '%[2-7][0-9A-Fa-f]|[^%]+|%', 'g') with ordinality as pieces (piece, place));
end $$;

-- 'bucket/name' of a Storage URL of any shape and any host; of anything else, the text as a path. The parser refuses what is
-- longer than 8192 bytes. Here, its beginning counts: it may still say which file an asset or a saved job needs, and however
-- long the rest is, it isn't read.
-- Looser than the package's parse_storage_url, and equal to it for every URL that the parser accepts: the parser decides
-- what may go, this one only what two values have in common.
create or replace function storage_cleanup.object_key(url text) returns text
language plpgsql immutable strict parallel safe
as $$
declare
    path text;
begin
    if octet_length(url) > 8192 then
        url := left(url, 8192);
    end if;
    -- The usual shapes take the short way through the branches below, without regular expressions: this runs in every
    -- write of a render, and three times for each that is cleaned up.
    if starts_with(url, 'http') and position('?' in url) > 0 and position('#' in url) = 0
       and url not like '%?%?token=%' then
        path := split_part(url, '?', 1);
    else
        -- The vertical tab is \x0B: before PostgreSQL 18, \v in such a string is the letter v, and stripping that means another object.
        path := split_part(btrim(url, E' \t\n\r\f\x0B'), '#', 1);
        if path like '%?%?token=%' and path ~ '^[^?]*/sign/[^?]*\?.*\?token=[^?]*$' then
            path := regexp_replace(path, '\?token=[^?]*$', '');     -- Storage doesn't encode a ? in a name that it signs
        else
            path := split_part(path, '?', 1);
        end if;
    end if;
    if starts_with(path, 'https://') or starts_with(path, 'http://') then
        path := substr(path, length(split_part(path, '/', 1)) + length(split_part(path, '/', 3)) + 3);
    elsif position('//' in path) > 0 then
        path := regexp_replace(path, '^([a-zA-Z][a-zA-Z0-9+.-]*:)?//[^/]*', '');
    end if;
    if starts_with(path, '/storage/v1/object/sign/') then
        path := substr(path, 25);
    elsif starts_with(path, '/storage/v1/object/public/') then
        path := substr(path, 27);
    else
        path := regexp_replace(path, '^/?(storage/v1/)?(((object|render/image)/(public|sign|authenticated)|object/info/(public|authenticated)|object/(info|upload/sign)|object|s3)/)?', '');
    end if;
    return storage_cleanup.percent_decoded(path);
end $$;

-- What an object is known by in locks, holders, references and claims. Two that share a hash protect each other.
create or replace function storage_cleanup.hash(key text) returns bigint
language sql immutable strict parallel safe
return hashtextextended(key, 0);

-- The name of an object in whichever bucket: what an asset says that names no bucket.
create or replace function storage_cleanup.bare(key text) returns text
language sql immutable strict parallel safe
return '*/' || substr(key, position('/' in key) + 1);

-- Which upload an object is: another one under the same name is another object.
create or replace function storage_cleanup.version(id uuid, version text) returns text
language sql immutable parallel safe
return id::text || coalesce('/' || version, '');

-- The size in an object's metadata, which anybody may have written: 0 for what can't be one (a fraction, text, 10 TB).
create or replace function storage_cleanup.size_of(metadata jsonb) returns bigint
language sql immutable parallel safe
return case when metadata ->> 'size' ~ '^[0-9]{1,13}$' then (metadata ->> 'size')::bigint else 0 end;

-- A sum of sizes of any number and origin, as a number that several of can be added.
create or replace function storage_cleanup.total_size(total numeric) returns bigint
language sql immutable parallel safe
return case when total > 0 then least(total, 1e17)::bigint else 0 end;

-- A row for the ledger. Values over 8 kB are left out: it keeps rows for months to tell what went, and isn't a backup.
create or replace function storage_cleanup.without_long_values(job jsonb) returns jsonb
language sql immutable parallel safe
return case when pg_column_size(job) <= 8192 then job
            else (select jsonb_object_agg(key, value) from jsonb_each(job) where pg_column_size(value) <= 8192) end;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/readings.sql

-- What a text may mean. These run inside the application's own statements: they must never fail, whatever they get, nor take long.

-- The parts of a text that may be the path of an object: each that begins with it, after a slash or after another sign that
-- may stand before a path, and ends with it or before a sign that may stand behind one. A name alone has an extension. And '*'
-- when there are more of them than are read.
create or replace function storage_cleanup.paths_in(piece text) returns setof text
language sql immutable parallel safe
as $$
    with beginning as materialized (
        select start
        from (select sum(length(part) + 1) over (order by place) - length(part) as start
              from string_to_table(translate(piece, '(,;=&:?@''', '/////////'), '/') with ordinality as cut (part, place) limit 41) as each
        where position('/storage/v1/' in piece) = 0     -- in a URL of Storage, nothing begins within the object's own path
           or left(piece, start::integer - 1)
              !~ '/storage/v1/(object|render/image)/(public|sign|authenticated)/[^(,;=&:?@'']+/$'
    ),
    ending as materialized (
        select sum(length(part) + 1) over (order by place) as beyond
        from string_to_table(translate(piece, '&),;''', '?????'), '?') with ordinality as cut (part, place)
        union
        select length(rtrim(piece, '.:!')) + 1 limit 21
    )
    select path
    from beginning join ending on beyond - start between 1 and 1200      -- no name is longer
    cross join lateral (select substr(piece, start::integer, (beyond - start)::integer) as path) as cut
    where (position('/' in path) > 1 or start = 1 and position('/' in path) = 1
           or path ~ '[.][A-Za-z0-9]+$' and (start = 1 or substr(piece, start::integer - 1, 1) <> '/'))
      and position('://' in path) = 0 and not starts_with(path, '//')
    union all
    select '*' where length(piece) - length(translate(piece, '/(,;=&:?@''', '')) > 40 or (select count(*) from ending) > 20
$$;

-- Every object that a text may mean, as 'bucket/name', or as '*/name' where it names no bucket: a URL of any shape and any
-- host, in another one's query or path, encoded several times over; a path; a name; any of them within JSON, Markdown or
-- prose. Whatever one of them means stays, so in doubt there are more of them; '*' when there are more than are read.
-- A text without a slash and without an extension means none, nor does what has a character that no object's name may have.
create or replace function storage_cleanup.readings(value text) returns text[]
language plpgsql immutable strict parallel safe
as $$
declare
    rest    text;
    query   text;
    words   text[];
    word    text;
    spelt   text;
    flat    text;
    pieces  text[];
    piece   text;
    is_cut  boolean := false;
    paths   text[] := '{}';
begin
    if value !~ '[/.%\\]' or starts_with(value, 'data:') and value !~ '\s' then
        return '{}';
    elsif value !~ '[^A-Za-z0-9_/.?=:-]' then      -- a usual URL means one object; this runs in every write of a render
        rest := split_part(value, '?', 1);
        query := substr(value, length(rest) + 2);
        if starts_with(value, 'https://') or starts_with(value, 'http://') then
            rest := substr(rest, length(split_part(rest, '/', 1)) + length(split_part(rest, '/', 3)) + 3);
            rest := case when starts_with(rest, '/storage/v1/object/sign/') then substr(rest, 25)
                         when starts_with(rest, '/storage/v1/object/public/') then substr(rest, 27)
                         when starts_with(rest, '/storage/v1/object/authenticated/') then substr(rest, 34) end;
        else
            rest := case when query = '' then null
                         when starts_with(rest, '/object/sign/') then substr(rest, 14)
                         when starts_with(rest, '/storage/v1/object/sign/') then substr(rest, 25) end;
        end if;
        if position('/' in rest) > 1 and rest !~ '[:=]|//|/[.]+/|/$' and length(rest) < 1200
           and (query = '' or starts_with(query, 'token=') and query !~ '[/?]') then
            return array[rest];
        end if;
    end if;
    if length(value) > 262144 then
        return '{*}';
    end if;
    words := array(
        select distinct each
        from (select unnest(array[value, btrim(value, E' \t\n\r\f\x0B')]) where length(value) <= 3500 union all
              select string_to_table(translate(value, E'\t\n\r\f\x0B"<>[]{}|^`~#\u00A0\u200B\u2028\u3000\uFEFF', repeat(' ', 22)), ' '))
             as part (each)
        where each ~ '[/\\]|[.][A-Za-z0-9]|%[0-9]'
        limit 201);
    if position('/' in value) > 0 then
        paths := array[storage_cleanup.object_key(value)];
    end if;
    foreach word in array words loop
        if length(word) > 3500 then         -- no name is longer, however it is encoded; what follows may be a token, or bytes
            is_cut := is_cut or substr(word, 3501) ~ '[.]' and substr(word, 3501) ~ '/|\\|%2[Ff]';
            word := left(word, 3500);
        end if;
        for decoded in 0 .. 3 loop
            spelt := case when position('\' in word) > 0 then replace(word, '\/', '/') || E'\n' || replace(word, '\', '/') else word end;
            flat := replace(spelt, '://', '<');
            flat := case when position('//' in flat) > 0 or position('/./' in flat) > 0
                         then replace(replace(replace(flat, '/./', '/'), '//', '/'), '//', '/') end;
            spelt := concat_ws(E'\n', spelt, flat, case when word ~ '[?].*[+]' then      -- a blank, as forms write it
                         replace(substr(word, position('?' in word)), '+', ' ') end);
            pieces := array(
                select distinct part from regexp_split_to_table(spelt, '[^A-Za-z0-9_/!.*''()&$@=;:+,? -]+') as part
                where part ~ '/|[.][A-Za-z0-9]' limit 201);
            foreach piece in array pieces[:200] loop
                paths := paths || array(select path from storage_cleanup.paths_in(piece) as path);
            end loop;
            is_cut := is_cut or cardinality(pieces) > 200;
            exit when position('%' in word) = 0;
            spelt := storage_cleanup.percent_decoded(word);
            exit when spelt = word;
            word := spelt;
        end loop;
        exit when cardinality(paths) > 2000;
    end loop;
    return array(
        select meant
        from unnest(paths) as path
        cross join lateral (values (case when position('/' in path) > 1 or path = '*' then path end), ('*/' || path)) as meaning (meant)
        where meant is not null
        union
        select '*' where is_cut or cardinality(words) > 200 or cardinality(paths) > 2000);
end $$;

-- All files of a user, as an object; of everybody, when the user isn't known.
create or replace function storage_cleanup.all_of(user_id text) returns text
language sql immutable parallel safe
return 'user:' || coalesce(user_id, '');

-- Every object that an asset may mean by what it says itself: in texts, arrays and JSON, keys among them. A name without a
-- folder may lie in its user's. One that says more than is read may mean any file of its user. The bytes of an image mean none.
create or replace function storage_cleanup.meant_in(asset jsonb) returns setof text
language sql immutable parallel safe
as $$
    with said as materialized (
        select text, row_number() over () as place, sum(length(text)) over (rows unbounded preceding) as total
        from (select said #>> '{}' as text
              from (select jsonb_path_query(asset, 'strict $.** ? (@.type() == "string")')
                    union all
                    select jsonb_path_query(asset, 'strict $.** ? (@.type() == "object").keyvalue().key')
                    where asset::text ~ '[/\\%.]([^"\\]|\\.)*":') as each (said)) as each
        where text ~ '[/\\%]|[.][A-Za-z0-9]' and (not starts_with(text, 'data:') or text ~ '\s')
          and text !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.+-]+$'      -- a moment: every asset has some
        limit 1001
    ),
    meant as materialized (
        select unnest(storage_cleanup.readings(text)) as key from said where place <= 1000 and total <= 262144 limit 5001
    )
    select key from meant where key <> '*'
    union all
    select '*/' || (asset ->> 'user_id') || substr(key, 2) from meant where key ~ '^[*]/[^/]+$' and asset ->> 'user_id' is not null
    union all
    select storage_cleanup.all_of(asset ->> 'user_id')
    where exists (select from said where place > 1000 or total > 262144) or (select count(*) > 5000 or bool_or(key = '*') from meant)
$$;

-- Every UUID in a text, however it is spelt: other casing, braces, no hyphens, in an array, nested.
create or replace function storage_cleanup.job_ids_in(reference text) returns uuid[]
language plpgsql immutable strict parallel safe
as $$
begin
    if reference ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        return array[reference::uuid];
    end if;
    return array(
        select piece[1]::uuid
        from regexp_matches(reference, '[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}', 'g') as piece
        union
        select piece[1]::uuid
        from regexp_matches(reference, '[0-9a-fA-F]{4}(?:-?[0-9a-fA-F]{4}){7}', 'g') as piece);
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/places.sql

-- Places: columns of other tables that may name a file or a job. What they mean is noted and kept like what assets mean.

-- The tables whose rows need files: the assets, of which everything is read, and the places.
create or replace function storage_cleanup.sources() returns table (of_table regclass, columns text[], key text[])
language sql stable
as $$
    select 'public.user_assets'::regclass, null::text[], array['id']
    union all
    select place.of_table, place.columns, place.key from storage_cleanup.place
$$;

-- How a row is known among those of its table, as text.
create or replace function storage_cleanup.row_key(fields jsonb, key text[]) returns text
language sql immutable parallel safe
return case cardinality(key) when 1 then fields ->> key[1]
            else (select jsonb_agg(fields -> part order by place)::text from unnest(key) with ordinality as parts (part, place)) end;

-- What is read of a row: all of it, or some columns, and whose it is.
create or replace function storage_cleanup.read_of(fields jsonb, columns text[]) returns jsonb
language sql immutable parallel safe
return case when columns is null then fields
            else jsonb_build_object('user_id', fields -> 'user_id', 'said', (
                select jsonb_object_agg(name, fields -> name) from unnest(columns) as name)) end;

-- The tables with triggers of ours.
create or replace function storage_cleanup.guarded() returns setof oid
language sql stable
as $$
    select 'public.render_jobs'::regclass::oid
    union
    select of_table from storage_cleanup.sources()
$$;

-- The statement that looks up rows of one of these tables by their names, $1; `by` text where the key was of another type then.
create or replace function storage_cleanup.lookup(of_table oid, by_text boolean, locking text default '', is_read boolean default true) returns text
language sql stable
as $$
    select format(
        'select wanted.source, ' || case when is_read then 'storage_cleanup.read_of(to_jsonb(stored.*), %1$L::text[])' else 'null::jsonb' end || ' as fields
         from (select source, substr(source, position('':'' in source) + 1) as key from unnest($1) as source) as wanted
         cross join lateral (select each.* from %2$s as each where %3$s limit 1 %4$s) as stored', columns, known.of_table,
        case when by_text then format('storage_cleanup.row_key(to_jsonb(each.*), %L::text[]) = wanted.key', key)
             else (select string_agg(format('each.%I = (%s)::%s', part, case cardinality(key) when 1 then 'wanted.key' else format('wanted.key::jsonb ->> %s', place - 1) end,
                                            format_type(atttypid, atttypmod)), ' and ')
                   from unnest(key) with ordinality as parts (part, place)
                   join pg_attribute on attrelid = known.of_table and attname = part) end, locking)
    from storage_cleanup.sources() as known join pg_class on pg_class.oid = known.of_table where known.of_table = lookup.of_table
$$;

-- The rows of one of these tables that are there, with what is read of them (or only that they are there).
create or replace function storage_cleanup.rows_of(of_table oid, sources text[], is_read boolean default true) returns table (source text, fields jsonb)
language plpgsql stable
as $$
begin
    if storage_cleanup.lookup(of_table, false) is not null then
        return query execute storage_cleanup.lookup(of_table, false, '', is_read) using sources;
    end if;
exception when data_exception then
    return query execute storage_cleanup.lookup(of_table, true, '', is_read) using sources;
end $$;

-- Those of them that nobody holds, locked against being written.
create or replace function storage_cleanup.lock_rows(of_table oid, sources text[]) returns text[]
language plpgsql
as $$
declare
    locked text[];
begin
    execute format('select array_agg(source) from (%s) as each', storage_cleanup.lookup(of_table, false, 'for share skip locked')) using sources into locked;
    return coalesce(locked, '{}');
end $$;

-- Like the triggers of the assets, but for each row. Such tables differ in their columns, and are seldom written in bulk.
create or replace function storage_cleanup.place_written() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    place   storage_cleanup.place := (select known from storage_cleanup.place as known where of_table = tg_relid);
    source  text;
    former  text;
    stored  jsonb;
begin
    if tg_op = 'TRUNCATE' then
        perform storage_cleanup.forget_table(tg_relid);
        return null;
    end if;
    if tg_op <> 'DELETE' then
        source := storage_cleanup.source(tg_relid, storage_cleanup.row_key(to_jsonb(new), place.key));
    end if;
    if tg_op <> 'INSERT' then
        former := storage_cleanup.source(tg_relid, storage_cleanup.row_key(to_jsonb(old), place.key));
        if former = source and storage_cleanup.read_of(to_jsonb(new), place.columns) = storage_cleanup.read_of(to_jsonb(old), place.columns) then
            return null;
        end if;
        if former is distinct from source and not exists (select from storage_cleanup.rows_of(tg_relid, array[former])) then
            perform storage_cleanup.forget_assets(array[former]);
        end if;
    end if;
    if source is not null then
        stored := (select fields from storage_cleanup.rows_of(tg_relid, array[source]));
        perform storage_cleanup.note_assets(
            array[source], array[coalesce(stored, storage_cleanup.read_of(to_jsonb(new), place.columns))],
            case when former = source then 'change' else 'new' end, true);
    end if;
    return null;
end $$;

-- Why a column can't be a place, in a sentence; NULL when it can.
create or replace function storage_cleanup.unfit_place(of_table regclass, in_column text) returns text
language sql stable
as $$
    select case
        when relnamespace in (select oid from pg_namespace where nspname in ('storage', 'storage_cleanup', 'pg_catalog'))
            then format('%s isn''t the application''s', of_table)
        when relkind <> 'r' or relispartition or exists (select from pg_inherits where inhparent = of_table or inhrelid = of_table)
            then format('%s is no ordinary table, and only one of these can be guarded', of_table)
        when not exists (select from pg_attribute where attrelid = of_table and attname = in_column and attnum > 0 and not attisdropped)
            then format('%s has no column %I', of_table, in_column)
        when not exists (select from pg_index where indrelid = of_table and indisprimary)
            then format('%s has no primary key, by which its rows could be told apart', of_table) end
    from pg_class where oid = of_table
$$;

-- The table and column of 'schema.table.column'; an error says what isn't right.
create or replace function storage_cleanup.place_of(wanted text, out of_table regclass, out in_column text)
language plpgsql stable
as $$
declare
    parts text[];
begin
    begin
        parts := parse_ident(wanted);
    exception when invalid_parameter_value then
        parts := '{}';
    end;
    of_table := case when cardinality(parts) = 3 then to_regclass(format('%I.%I', parts[1], parts[2])) end;
    in_column := parts[3];
    if of_table is null then
        raise exception using errcode = 'invalid_parameter_value', message = format(case when cardinality(parts) = 3 then '%s names no table' else '%s names no column' end, wanted),
            hint = 'It accepts schema.table.column, such as public.posts.cover.';
    end if;
end $$;

-- Protects what these columns ('schema.table.column') name, too: their tables get triggers. Run by their owner. Nothing is claimed
-- until a comparison has read what they say already; a cycle makes it.
create or replace function storage_cleanup.protect(variadic wanted text[]) returns void
language plpgsql set search_path = ''
as $$
declare
    named  record;
    reason text;
begin
    for named in select found.* from unnest(wanted) as name cross join lateral storage_cleanup.place_of(name) as found loop
        continue when named.of_table = 'public.user_assets'::regclass;      -- all of it is protected anyway
        reason := storage_cleanup.unfit_place(named.of_table, named.in_column);
        if reason is not null then
            raise exception using errcode = 'invalid_parameter_value', message = reason;
        end if;
        insert into storage_cleanup.place (of_table, columns, key)
        select named.of_table, array[named.in_column], array(
            select attname::text from pg_index cross join lateral unnest(indkey) with ordinality as part (number, place)
            join pg_attribute on attrelid = indrelid and attnum = part.number
            where indrelid = named.of_table and indisprimary order by part.place)
        on conflict (of_table) do update set columns = array(
            select unnest(storage_cleanup.place.columns) union select named.in_column order by 1);
    end loop;
    perform storage_cleanup.make_trigger(trigger.of_table, trigger.name) from storage_cleanup.trigger_state() as trigger
    where fault is not null and trigger.of_table in (select known.of_table from storage_cleanup.place as known);
end $$;

-- No longer protects what these columns name. What has been noted of them goes with the next comparison.
create or replace function storage_cleanup.unprotect(variadic wanted text[]) returns void
language plpgsql set search_path = ''
as $$
declare
    named   record;
    trigger record;
begin
    for named in select found.* from unnest(wanted) as name cross join lateral storage_cleanup.place_of(name) as found loop
        update storage_cleanup.place set columns = array_remove(columns, named.in_column) where of_table = named.of_table;
    end loop;
    for trigger in select * from storage_cleanup.wanted_triggers() as each
                   where each.of_table in (select of_table from storage_cleanup.place where columns = '{}') loop
        execute format('drop trigger if exists %I on %s', trigger.name, trigger.of_table);
    end loop;
    delete from storage_cleanup.place where columns = '{}';
    update storage_cleanup.comparison set fingerprint = null;
end $$;

-- Which of these columns aren't protected.
create or replace function storage_cleanup.unprotected_among(wanted text[]) returns setof text
language plpgsql stable security definer set search_path = ''
as $$
declare
    name  text;
    named record;
begin
    foreach name in array wanted loop
        begin
            select * into named from storage_cleanup.place_of(name);
        exception when invalid_parameter_value then
            return next name;
            continue;
        end;
        if named.of_table <> 'public.user_assets'::regclass
           and not exists (select from storage_cleanup.place where of_table = named.of_table and named.in_column = any (columns)) then
            return next name;
        end if;
    end loop;
end $$;

-- What is wrong with the places: a code and a sentence each.
create or replace function storage_cleanup.unfit_places() returns table (code text, sentence text)
language sql stable
as $$
    select distinct 'place', case when pg_class.oid is null then format('the table %s is gone, whose columns were protected: run storage_cleanup.forget_gone_places()', of_table::oid)
                         else storage_cleanup.unfit_place(of_table, name) || ': run storage_cleanup.unprotect for it, or restore it' end
    from storage_cleanup.place cross join lateral unnest(columns) as name left join pg_class on pg_class.oid = of_table
    where pg_class.oid is null or storage_cleanup.unfit_place(of_table, name) is not null
$$;

-- Forgets the places whose tables are gone.
create or replace function storage_cleanup.forget_gone_places() returns void
language sql set search_path = ''
as $$
    delete from storage_cleanup.place where of_table::oid not in (select oid from pg_class);
    update storage_cleanup.comparison set fingerprint = null;
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/installation.sql

-- The installation. What belongs on the application's tables is written down here once: both ways of installing make
-- what is missing of it, preflight and health look for it.

-- The function deletes nothing when this number isn't the one that it was built for.
create or replace function storage_cleanup.schema_version() returns integer
language sql immutable parallel safe
return 1;

create or replace function storage_cleanup.wanted_indexes() returns table (name text, definition text)
language sql stable set search_path = ''
as $$
    -- Hash, because a B-tree would refuse the application's row when a value is long; NULLs take no room in it.
    select 'storage_cleanup_render_job_id', 'on public.user_assets using hash ((metadata ->> ''render_job_id''))'
$$;

-- What is wrong with each index: 'missing', 'invalid', 'outdated'; null when nothing is. Its comment says of which definition
-- it was built.
create or replace function storage_cleanup.index_state() returns table (name text, definition text, fingerprint text, fault text)
language sql stable set search_path = ''
as $$
    select wanted.name, wanted.definition, md5(wanted.definition), case
        when indexrelid is null then 'missing'
        when not (indisvalid and indisready) then 'invalid'
        when obj_description(indexrelid, 'pg_class') is distinct from md5(wanted.definition) then 'outdated' end
    from storage_cleanup.wanted_indexes() as wanted
    left join pg_index on indexrelid = to_regclass(format('public.%I', wanted.name))
    order by wanted.name
$$;

-- The triggers in the words of pg_get_triggerdef, with tgenabled, in the order in which they are made. None names a column,
-- in a list or in WHEN: it could no longer be given another type, or be dropped. Those for each row fire where the others
-- don't: for what replication or a restore applies.
create or replace function storage_cleanup.wanted_triggers()
returns table (place integer, name text, of_table regclass, definition text, enabled text)
language sql stable set search_path = ''
as $$
    select place, 'storage_cleanup_' || name, of_table::regclass, format('%s ON %s %s EXECUTE FUNCTION storage_cleanup.%s()',
               happening, of_table, firing, function), enabled
    from (values
        (1, 'job_inserted', 'public.render_jobs', 'AFTER INSERT',
            'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT', 'jobs_written', 'O'),
        (2, 'job_updated', 'public.render_jobs', 'AFTER UPDATE',
            'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT', 'jobs_written', 'O'),
        (3, 'job_deleted', 'public.render_jobs', 'AFTER DELETE',
            'REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT', 'jobs_gone', 'O'),
        (4, 'job_truncated', 'public.render_jobs', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'jobs_gone', 'O'),
        (5, 'job_applied', 'public.render_jobs', 'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'job_applied', 'R'),
        (6, 'asset_inserted', 'public.user_assets', 'AFTER INSERT',
            'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT', 'assets_written', 'O'),
        (7, 'asset_updated', 'public.user_assets', 'AFTER UPDATE',
            'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT', 'assets_written', 'O'),
        (8, 'asset_deleted', 'public.user_assets', 'AFTER DELETE',
            'REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT', 'assets_gone', 'O'),
        (9, 'asset_truncated', 'public.user_assets', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'assets_gone', 'O'),
        (10, 'asset_applied', 'public.user_assets', 'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'asset_applied', 'R'))
        as wanted (place, name, of_table, happening, firing, function, enabled)
    union all
    select 10 + number, 'storage_cleanup_' || name, of_table, format('%s ON %s %s EXECUTE FUNCTION storage_cleanup.place_written()', happening, of_table, firing), 'A'
    from storage_cleanup.place join pg_class on oid = of_table
    cross join (values (1, 'place_written', 'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW'),
                       (2, 'place_truncated', 'AFTER TRUNCATE', 'FOR EACH STATEMENT')) as wanted (number, name, happening, firing)
$$;

-- What is wrong with each trigger: 'missing', 'different'; null when nothing is.
create or replace function storage_cleanup.trigger_state() returns table (place integer, name text, of_table regclass, fault text)
language sql stable set search_path = ''
as $$
    select wanted.place, wanted.name, wanted.of_table, case
        when pg_trigger.oid is null then 'missing'
        when pg_get_triggerdef(pg_trigger.oid) <> format('CREATE TRIGGER %I %s', wanted.name, definition)
             or tgenabled::text <> enabled then 'different' end
    from storage_cleanup.wanted_triggers() as wanted
    left join pg_trigger on tgrelid = wanted.of_table and tgname = wanted.name and not tgisinternal
    order by wanted.place, wanted.of_table
$$;

-- Makes one trigger. Whatever happened while it was away is looked for afterwards.
create or replace function storage_cleanup.make_trigger(on_table regclass, wanted text) returns void
language plpgsql set search_path = ''
as $$
declare
    made record;
begin
    select * into strict made from storage_cleanup.wanted_triggers() where of_table = on_table and name = wanted;
    execute format('create or replace trigger %I %s', made.name, made.definition);
    if made.enabled <> 'O' then
        execute format('alter table %s enable %s trigger %I', made.of_table, case made.enabled when 'R' then 'replica' else 'always' end, made.name);
    end if;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/locks.sql

-- The locks. Whoever saves holds the objects that the asset names, and the id of each job that it names, whether or not that
-- job exists or has a URL yet; a job that takes a URL holds its object; a claim takes its object and every job that holds
-- it. So a save and a claim of the same object meet at a row, and one of them sees what the other did.
--
--   - Holders take a key share, until their transaction ends. Key shares don't exclude each other, so two transactions of
--     the application never wait for each other here, in whatever order they save.
--   - A claim skips what is held and never waits, so nobody can wait for each other in a circle.
--   - A claim looks in a statement after the one that locks, and updates the row in the same transaction. Both are needed:
--     without the update, a save above read committed that waited would go on with a snapshot from before the claim; with
--     it, the save fails to serialize.

create or replace function storage_cleanup.slot(job uuid) returns integer
language sql immutable strict parallel safe
return (uuid_hash_extended(job, 0) & 8191)::integer;

-- The rows of the locks for these jobs and objects.
create or replace function storage_cleanup.slots(jobs uuid[], objects bigint[]) returns integer[]
language sql immutable parallel safe
return array(select storage_cleanup.slot(job) from unnest(jobs) as job
             union select (object & 8191)::integer from unnest(objects) as object);

create or replace function storage_cleanup.hold(jobs uuid[], objects bigint[]) returns void
language plpgsql
as $$
begin
    perform from storage_cleanup.lock where slot = any (storage_cleanup.slots(jobs, objects)) order by slot for key share;
end $$;

-- Takes what nobody holds, and returns it.
create or replace function storage_cleanup.take(wanted integer[]) returns integer[]
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    taken integer[];
begin
    taken := array(select slot from storage_cleanup.lock where slot = any (wanted) order by slot for update skip locked);
    update storage_cleanup.lock set n = n + 1 where slot = any (taken);
    return taken;
end $$;

-- Takes these jobs, and their rows, as far as nobody holds them; returns those.
create or replace function storage_cleanup.take_jobs(jobs uuid[]) returns uuid[]
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    taken integer[] := storage_cleanup.take(storage_cleanup.slots(jobs, '{}'));
begin
    return array(select job.id from public.render_jobs as job
                 where job.id in (select asked.id from unnest(jobs) as asked (id) join unnest(taken) as own (slot) on own.slot = storage_cleanup.slot(asked.id))
                 order by job.id for update skip locked);
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/renders.sql

-- What jobs point at, and which of them are worth a look. Kept by triggers, so that a cycle costs what is new and not what
-- has been.

create or replace function storage_cleanup.has_file(output_url text) returns boolean
language sql immutable parallel safe
return case when octet_length(output_url) > 8192 then true else coalesce(btrim(output_url), '') <> '' end;

-- As much of a URL as is read. Long ones are told apart by their length: comparing them would mean to read them.
create or replace function storage_cleanup.read_part(output_url text) returns text
language sql immutable parallel safe
return case when octet_length(output_url) > 8192 then substr(output_url, 1, 8192) || ' ' || octet_length(output_url) else output_url end;

-- Notes what these jobs point at now; `mode` is that of note_assets. What an asset needed through a job, it goes on to need
-- when the job points elsewhere.
create or replace function storage_cleanup.note_holders(
    jobs uuid[], urls text[], mode text, out taken bigint[], out former bigint[], out movers uuid[])
language plpgsql
as $$
begin
    if mode = 'new' and exists (select from storage_cleanup.holder where job_id = any (jobs)) then
        -- Of jobs that were there before. A comparison may just be forgetting that.
        perform from storage_cleanup.holder where job_id = any (jobs) for key share;
        mode := 'change';
    end if;
    with wanted as materialized (
        select distinct job, storage_cleanup.hash(unnest(storage_cleanup.readings(url))) as object
        from unnest(jobs, urls) as written (job, url)
    ),
    stale as (
        delete from storage_cleanup.holder
        where mode = 'change' and job_id = any (jobs)
          and not exists (select from wanted where job = job_id and wanted.object = holder.object)
        returning job_id, object
    ),
    added as (
        insert into storage_cleanup.holder (job_id, object)
        select job, object from wanted
        where mode = 'new' or not exists (select from storage_cleanup.holder as known where known.job_id = job and known.object = wanted.object)
        returning job_id, object
    ),
    needed as (
        insert into storage_cleanup.reference (source, object, job_id)
        select distinct source, object, job_id
        from (select * from stale union all select * from added) as pointed join storage_cleanup.mention on id = job_id
        where not exists (select from storage_cleanup.reference as known
                          where known.source = mention.source and known.object = pointed.object and known.job_id = pointed.job_id)
    )
    select array(select object from added), array(select object from stale), array(select job_id from added)
    into taken, former, movers;
end $$;

-- Notes what these jobs point at, and which of them have completed.
create or replace function storage_cleanup.note_jobs(jobs uuid[], urls text[], completed boolean[], mode text) returns void
language plpgsql
as $$
declare
    seen_at   constant timestamptz := clock_timestamp();
    taken     bigint[];
    former    bigint[];
    movers    uuid[];
begin
    select * into taken, former, movers from storage_cleanup.note_holders(jobs, urls, mode);
    if taken <> '{}' or former <> '{}' then
        perform storage_cleanup.hold('{}', taken || former);
        -- A saved job must not move to a file that is being removed. One that isn't saved may: nobody can save it then.
        if exists (select from storage_cleanup.deletion where state in ('claimed', 'file_deleted') and object = any (taken)) then
            perform storage_cleanup.refuse_if_claimed('{}', array(
                select object from storage_cleanup.holder
                where job_id in (select storage_cleanup.saved_among(movers)) and object = any (taken)), '{}');
        end if;
    end if;

    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
    select job, seen_at, seen_at, storage_cleanup.has_file(url) from unnest(jobs, urls, completed) as written (job, url, is_completed)
    where is_completed
    on conflict (job_id) do update
        set since = seen_at, completed_at = seen_at, has_file = excluded.has_file, reason = null, out_of_scope = null;
    if mode = 'change' then
        delete from storage_cleanup.candidate
        where job_id in (select job from unnest(jobs, completed) as written (job, is_completed) where not is_completed);
    end if;
end $$;

-- Forgets jobs that are gone, and are not there again; what assets needed through them, they go on to need.
create or replace function storage_cleanup.forget_jobs(jobs uuid[]) returns void
language sql
as $$
    with stale as (
        delete from storage_cleanup.holder
        where job_id = any (jobs) and not exists (select from storage_cleanup.job() where id = job_id) returning job_id, object
    ),
    forgotten as (
        delete from storage_cleanup.candidate
        where job_id = any (jobs) and not exists (select from storage_cleanup.job() where id = job_id)
    )
    insert into storage_cleanup.reference (source, object, job_id)
    select distinct source, object, job_id from stale join storage_cleanup.mention on id = job_id
    where not exists (select from storage_cleanup.reference as known
                      where known.source = mention.source and known.object = stale.object and known.job_id = stale.job_id)
$$;

-- What is noted is what the table says now: a statement within the statement may have written the row again meanwhile, and has
-- had its own triggers before these. A row that isn't to be seen any more counts as it was written.
create or replace function storage_cleanup.jobs_written() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    jobs      uuid[];
    urls      text[];
    completed boolean[];
    gone      uuid[];
begin
    if tg_op = 'INSERT' then
        select array_agg(written.id),
               array_agg(storage_cleanup.read_part(case when job.id is null then written.output_url else job.output_url end)),
               array_agg(coalesce(case when job.id is null then written.status::text else job.status end = 'completed', false))
        into jobs, urls, completed
        from new_rows as written
        left join lateral (select * from storage_cleanup.job() as job where job.id = written.id limit 1) as job on true
        where written.status = 'completed' or written.output_url is not null;
    else        -- old and new are never joined: a plan for one row would be kept for ten thousand
        select array_agg(changed.id), array_agg(case when job.id is null then changed.url else storage_cleanup.read_part(job.output_url) end),
               array_agg(case when job.id is null then changed.is_completed else coalesce(job.status = 'completed', false) end)
        into jobs, urls, completed
        from (select written.id, storage_cleanup.read_part(written.output_url) as url, coalesce(written.status = 'completed', false) as is_completed
              from new_rows as written
              except select former.id, storage_cleanup.read_part(former.output_url), coalesce(former.status = 'completed', false)
              from old_rows as former) as changed
        left join lateral (select * from storage_cleanup.job() as job where job.id = changed.id limit 1) as job on true;
        gone := array(select former.id from old_rows as former except select written.id from new_rows as written);
        if gone <> '{}' then
            perform storage_cleanup.forget_jobs(gone);
        end if;
    end if;
    if jobs is not null then
        perform storage_cleanup.note_jobs(jobs, urls, completed, case tg_op when 'INSERT' then 'new' else 'change' end);
    end if;
    return null;
end $$;

create or replace function storage_cleanup.jobs_gone() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if tg_op = 'DELETE' then
        perform storage_cleanup.forget_jobs(array(select former.id from old_rows as former));
    else
        perform storage_cleanup.forget_jobs(array(
            select job_id from storage_cleanup.holder union select job_id from storage_cleanup.candidate));
    end if;
    return null;
end $$;

create or replace function storage_cleanup.job_applied() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and new.id is distinct from old.id then
        perform storage_cleanup.forget_jobs(array[old.id]);
    end if;
    if tg_op = 'INSERT' or tg_op = 'UPDATE'
       and (storage_cleanup.read_part(new.output_url), new.status = 'completed')
           is distinct from (storage_cleanup.read_part(old.output_url), old.status = 'completed') then
        perform storage_cleanup.note_jobs(
            array[new.id], array[storage_cleanup.read_part(case when job.id is null then new.output_url else job.output_url end)],
            array[coalesce(case when job.id is null then new.status::text else job.status end = 'completed', false)], 'change')
        from (select new.id) as written left join storage_cleanup.job() as job on job.id = written.id;
    end if;
    return null;
end $$;

-- A date that somebody else wrote, as one that can be worked with: clients can't read some, such as -infinity.
create or replace function storage_cleanup.created(created_at timestamptz) returns timestamptz
language sql stable parallel safe
return greatest(coalesce(created_at, now()), 'epoch');

-- ---------------------------------------------------------------------------------------------------------------
-- functions/references.sql

-- What assets need. An asset that is written notes every job and every object that it may mean, takes their locks, and only
-- then looks for a claim: one that comes too late is an error, never a broken asset.
--
-- The triggers' plans are generic: planning each statement anew cost four times as much as the statements themselves. Whose
-- rights and settings apply, the triggers say, and what they call goes by that: saying it in each took a third of the time.

-- The jobs that hold these objects, but for an object that more than a thousand hold: that is a placeholder, and stays.
create or replace function storage_cleanup.holders_of(objects bigint[]) returns uuid[]
language sql stable
as $$
    select array(
        select distinct job_id
        from unnest(objects) as wanted
        cross join lateral (select array(select job_id from storage_cleanup.holder where object = wanted limit 1001) as jobs) as holding
        cross join lateral unnest(holding.jobs) as job_id
        where cardinality(holding.jobs) <= 1000)
$$;

-- These jobs, and the jobs of these objects, may have lost what kept them.
create or replace function storage_cleanup.let_go(jobs uuid[], objects bigint[]) returns void
language sql
as $$
    insert into storage_cleanup.unsaved (job_id)
    select unnest(jobs)
    union
    select unnest(storage_cleanup.holders_of(objects))
$$;

-- Every UUID that these assets hold, anywhere and in any spelling. Its own user is in every asset, and is no job.
create or replace function storage_cleanup.said_by(sources text[], assets jsonb[]) returns table (source text, job uuid, is_save boolean)
language sql immutable parallel safe
as $$
    select source, job, bool_or(is_save)
    from unnest(sources, assets) as asset (source, fields)
    cross join lateral (
        select unnest(storage_cleanup.job_ids_in(fields #>> '{metadata,render_job_id}')) as job, true as is_save
        union all
        select unnest(storage_cleanup.job_ids_in((fields - 'user_id')::text)), false) as each
    group by source, job
$$;

-- Every object that these assets may mean by what they say themselves.
create or replace function storage_cleanup.meant_by(sources text[], assets jsonb[]) returns table (source text, object bigint)
language sql immutable parallel safe
as $$
    select distinct source, storage_cleanup.hash(key)
    from unnest(sources, assets) as asset (source, fields) cross join lateral storage_cleanup.meant_in(fields) as key
$$;

-- Notes what these assets mean now, instead of what they meant before. `mode`: 'new' when nothing is noted of them yet,
-- 'change' when something else may be, 'add' to leave that. `refuse`: somebody is writing them, and may be told that it is too
-- late.
create or replace function storage_cleanup.note_assets(sources text[], assets jsonb[], mode text, refuse boolean) returns void
language plpgsql
as $$
declare
    named     uuid[];       -- jobs that they didn't name before
    needed    bigint[];     -- objects that they didn't need before
    through   bigint[];     -- objects of the jobs that they didn't name before
    lost_jobs uuid[] := '{}';
    lost      bigint[] := '{}';
begin
    if mode = 'new' and exists (select from storage_cleanup.mention where source = any (sources)
                                union all select from storage_cleanup.reference where source = any (sources)) then
        -- Of rows that were there before. A comparison may just be forgetting that.
        perform from storage_cleanup.mention where source = any (sources) for key share;
        perform from storage_cleanup.reference where source = any (sources) for key share;
        mode := 'change';
    end if;
    if mode = 'change' then
        with said as materialized (select * from storage_cleanup.said_by(sources, assets)),
        unsaid as (
            delete from storage_cleanup.mention as known
            where source = any (sources)
              and not exists (select from said where said.source = known.source and job = id and said.is_save = known.is_save)
            returning source, id
        ),
        unneeded as (
            delete from storage_cleanup.reference as known using unsaid
            where known.source = unsaid.source and known.job_id = unsaid.id
              and not exists (select from said where said.source = unsaid.source and job = unsaid.id)
            returning object
        )
        select array(select id from unsaid), array(select object from unneeded) into lost_jobs, lost;

        with meant as materialized (select * from storage_cleanup.meant_by(sources, assets)),
        unneeded as (
            delete from storage_cleanup.reference as known
            where source = any (sources) and job_id is null
              and not exists (select from meant where meant.source = known.source and meant.object = known.object)
            returning object
        )
        select lost || array(select object from unneeded) into lost;
    end if;

    with mentioned as (
        insert into storage_cleanup.mention (source, id, is_save)
        select source, job, is_save from storage_cleanup.said_by(sources, assets) as said
        where mode = 'new' or not exists (select from storage_cleanup.mention as known
                                     where known.source = said.source and id = job and known.is_save = said.is_save)
        returning id
    ),
    meant as (
        insert into storage_cleanup.reference (source, object)
        select source, object from storage_cleanup.meant_by(sources, assets) as meant
        where mode = 'new' or not exists (select from storage_cleanup.reference as known
                                     where known.source = meant.source and known.object = meant.object and job_id is null)
        returning object
    )
    select array(select id from mentioned), array(select object from meant) into named, needed;

    if named <> '{}' or needed <> '{}' then
        perform storage_cleanup.hold(named, needed);
        -- A statement of its own, so it sees what was committed while a lock was waited for. Above read committed it would
        -- not; but a claim has updated the lock, and what can't be seen fails to serialize.
        with added as (
            insert into storage_cleanup.reference (source, object, job_id)
            select distinct source, object, job_id
            from unnest(named) as job
            join storage_cleanup.mention on id = job and source = any (sources)
            join storage_cleanup.holder on job_id = job
            where not exists (select from storage_cleanup.reference as known
                              where known.source = mention.source and known.object = holder.object and known.job_id = holder.job_id)
            returning object
        )
        select array(select object from added) into through;
        perform storage_cleanup.hold('{}', through);
        if refuse then
            perform storage_cleanup.refuse_if_claimed(named, needed || through, through);
        end if;
    end if;
    if lost_jobs <> '{}' or lost <> '{}' then
        perform storage_cleanup.let_go(lost_jobs, lost);
    end if;
end $$;

-- Forgets what assets meant that are gone.
create or replace function storage_cleanup.forget_assets(sources text[]) returns void
language plpgsql
as $$
declare
    jobs    uuid[];
    objects bigint[];
begin
    with mentioned as (delete from storage_cleanup.mention where source = any (sources) returning id),
         needed as (delete from storage_cleanup.reference where source = any (sources) returning object)
    select array(select id from mentioned), array(select object from needed) into jobs, objects;
    perform storage_cleanup.let_go(jobs, objects);
end $$;

-- Forgets what all rows of a table meant.
create or replace function storage_cleanup.forget_table(of_table oid) returns void
language sql
as $$
    select storage_cleanup.forget_assets(array(
        select source from storage_cleanup.mention where starts_with(source, of_table || ':')
        union select source from storage_cleanup.reference where starts_with(source, of_table || ':')))
$$;

-- Which of these jobs are saved? The only definition of it. What is noted, and beside it a look of its own into the assets.
create or replace function storage_cleanup.saved_among(jobs uuid[]) returns setof uuid
language sql stable security definer set search_path = '' set enable_seqscan = off
as $$
    select asked.id from unnest(jobs) as asked (id)
    where exists (select from storage_cleanup.mention where mention.id = asked.id)
       or exists (select from public.user_assets as asset where asset.metadata ->> 'render_job_id' = asked.id::text)
$$;

-- Which of these objects ('bucket/name') does an asset need, by whatever it says?
create or replace function storage_cleanup.needed_among(keys text[]) returns setof text
language sql stable security definer set search_path = '' set enable_seqscan = off
as $$
    select key from unnest(keys) as key
    where exists (select from storage_cleanup.reference
                  where object in (storage_cleanup.hash(key), storage_cleanup.hash(storage_cleanup.bare(key))))
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/guard.sql

-- The guard: who writes an asset is told when it comes too late.

-- Refuses what names a job, or an object, that is being removed; and a job whose own file (`files`) has gone.
create or replace function storage_cleanup.refuse_if_claimed(jobs uuid[], objects bigint[], files bigint[]) returns void
language plpgsql
as $$
declare
    taken uuid;
begin
    select job_id into taken from storage_cleanup.deletion
    where job_id = any (jobs) and state <> 'released'
      and not (state = 'done' and exists (      -- the row has stayed, and has another file or never had one
          select from storage_cleanup.job() as job
          where job.id = job_id and (object_name is null
                                     or storage_cleanup.object_key(job.output_url) <> bucket_id || '/' || object_name)))
    limit 1;
    if taken is null then
        select job_id into taken
        from (select job_id from storage_cleanup.deletion
              where state in ('claimed', 'file_deleted') and object = any (objects)
              union all
              select job_id from storage_cleanup.deletion
              where state in ('claimed', 'file_deleted') and bare = any (objects)
              union all
              select job_id from storage_cleanup.deletion
              where state = 'done' and object = any (files)
                and not exists (select from storage.objects as stored
                                where stored.bucket_id = deletion.bucket_id and stored.name = deletion.object_name)) as claimed
        limit 1;
    end if;
    if taken is not null then
        raise exception using
            errcode = 'foreign_key_violation',
            message = format('The output of render job %s can no longer be saved: it was not saved in time and is being removed.', taken),
            hint = 'Render it again and save the new output.',
            schema = 'public', table = 'user_assets', constraint = 'storage_cleanup_guard';
    end if;
end $$;

-- The triggers of the assets' tables. For each statement, so that rows in bulk cost little; after it, so that no trigger of
-- the application's can change what was read; without a list of columns, so that none can be given what this doesn't see.
-- What is noted is what the table says now: a statement within the statement may have written the row again meanwhile, and
-- has had its own triggers before these.
create or replace function storage_cleanup.assets_written() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    sources text[];
    assets  jsonb[];
    gone    text[];
begin
    if tg_op = 'INSERT' then
        select array_agg(storage_cleanup.source(tg_relid, written.id::text)), array_agg(coalesce(stored.fields, to_jsonb(written.*)))
        into sources, assets
        from new_rows as written
        left join lateral (
            select to_jsonb(asset.*) as fields from public.user_assets as asset where asset.id = written.id limit 1) as stored on true;
    else        -- old and new are never joined: a plan for one row would be kept for ten thousand
        select array_agg(storage_cleanup.source(tg_relid, changed.id::text)), array_agg(coalesce(stored.fields, changed.fields))
        into sources, assets
        from (select written.id, to_jsonb(written.*) as fields from new_rows as written
              except select former.id, to_jsonb(former.*) from old_rows as former) as changed
        left join lateral (
            select to_jsonb(asset.*) as fields from public.user_assets as asset where asset.id = changed.id limit 1) as stored on true;
        gone := array(
            select storage_cleanup.source(tg_relid, former.id::text)
            from (select each.id from old_rows as each except select each.id from new_rows as each) as former
            where not exists (select from public.user_assets as asset where asset.id = former.id));
        if gone <> '{}' then
            perform storage_cleanup.forget_assets(gone);
        end if;
    end if;
    if sources is not null then
        perform storage_cleanup.note_assets(sources, assets, case when tg_op = 'INSERT' or gone <> '{}' then 'new' else 'change' end, true);
    end if;
    return null;
end $$;

create or replace function storage_cleanup.assets_gone() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if tg_op = 'DELETE' then
        perform storage_cleanup.forget_assets(array(
            select storage_cleanup.source(tg_relid, former.id::text) from old_rows as former
            where not exists (select from public.user_assets as asset where asset.id = former.id)));
    else
        perform storage_cleanup.forget_table(tg_relid);
    end if;
    return null;
end $$;

-- The same for what replication or a restore applies: there, only triggers for each row fire.
create or replace function storage_cleanup.asset_applied() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if (tg_op = 'DELETE' or tg_op = 'UPDATE' and new.id is distinct from old.id)
       and not exists (select from public.user_assets as asset where asset.id = old.id) then
        perform storage_cleanup.forget_assets(array[storage_cleanup.source(tg_relid, old.id::text)]);
    end if;
    if tg_op <> 'DELETE' then
        perform storage_cleanup.note_assets(array[storage_cleanup.source(tg_relid, new.id::text)],
                                            array[coalesce((select to_jsonb(asset.*) from public.user_assets as asset where asset.id = new.id), to_jsonb(new))],
                                            case when tg_op = 'UPDATE' and new.id = old.id then 'change' else 'new' end, true);
    end if;
    return null;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/candidates.sql

-- The candidates: which jobs are worth a look, without searching the history.

-- The next page of candidates in order of age, after the last one of the page before. With a plan: its jobs, in order of
-- id. A URL of more than 8192 bytes isn't handed out: no object needs one, and a page of them could fill a client's memory.
-- `own_share`: only those that fall to this run while several are at work, so that they don't get in each other's way.
create or replace function storage_cleanup.due(
    this_run uuid, with_file boolean, max_age interval, after_since timestamptz, after_job uuid, page_size integer,
    own_share boolean, plan uuid, grace interval default '0')
returns table (job_id uuid, since timestamptz, output_url text, too_long boolean, gone boolean)
language plpgsql stable security definer set search_path = '' set enable_seqscan = off
as $$
declare
    runs integer;
    mine integer;
begin
    perform storage_cleanup.assert_age(max_age);
    if plan is not null then
        return query
        select page.job_id, 'epoch'::timestamptz, case when octet_length(job.output_url) <= 8192 then job.output_url end,
               coalesce(octet_length(job.output_url) > 8192, false), job.id is null
        from storage_cleanup.plan_job as page
        left join storage_cleanup.job() as job on job.id = page.job_id
        where run_id = plan and page.job_id > after_job and has_file = with_file
        order by page.job_id limit page_size;
        return;
    end if;
    select count(*), count(*) filter (where id < this_run) into runs, mine
    from storage_cleanup.run
    where status = 'running' and not dry_run and not storage_cleanup.has_died(run);
    return query
    select page.job_id, page.since, case when octet_length(job.output_url) <= 8192 then job.output_url end,
           coalesce(octet_length(job.output_url) > 8192, false), job.id is null
    from (select candidate.job_id, candidate.since from storage_cleanup.candidate
          where has_file = with_file and candidate.since < now() - max_age
            and (unsaved_at is null or unsaved_at < now() - grace)
            and (candidate.since, candidate.job_id) > (after_since, after_job)
            and (runs < 2 or not own_share or (uuid_hash(candidate.job_id) & 65535) % runs = mine)
          order by candidate.since, candidate.job_id limit page_size) as page
    left join storage_cleanup.job() as job on job.id = page.job_id
    order by page.since, page.job_id;
end $$;

-- Remembers why candidates were kept, so that the next cycle need not look at them again.
-- What has been decided for good leaves; what may change waits an hour; what was only busy stays where it is.
create or replace function storage_cleanup.park(jobs uuid[], reasons text[], max_age interval) returns void
language sql security definer set search_path = ''
as $$
    with verdict as (select * from unnest(jobs, reasons) as verdict (job_id, reason)),
    gone as (
        delete from storage_cleanup.candidate
        where job_id in (
            select job_id from storage_cleanup.candidate join verdict using (job_id)
            where verdict.reason in ('claimed', 'already_missing', 'saved', 'job_gone', 'job_not_completed', 'already_claimed')
              -- One that is saved while it is young may be deleted by its user while it is: its moment is still needed.
              and (verdict.reason <> 'saved' or completed_at < now() - max_age)
            for update of candidate skip locked)
    )
    update storage_cleanup.candidate
    set since = now() + interval '1 hour' - max_age, reason = verdict.reason
    from verdict
    where candidate.job_id = verdict.job_id
      and candidate.job_id in (
          select job_id from storage_cleanup.candidate join verdict using (job_id)
          where verdict.reason not in ('claimed', 'already_missing', 'saved', 'job_gone', 'job_not_completed', 'already_claimed',
                                       'locked', 'job_changed', 'not_in_plan')
          for update of candidate skip locked)
$$;

-- Sets candidates aside whose URL means no object for this run, nor for any other of its scope, until the scope changes: they
-- would be looked at each hour for nothing.
create or replace function storage_cleanup.set_aside(this_run uuid, jobs uuid[], reasons text[]) returns void
language sql security definer set search_path = ''
as $$
    update storage_cleanup.candidate
    set since = 'infinity', reason = verdict.reason,
        out_of_scope = (select storage_cleanup.hash(run.scope::text) from storage_cleanup.run where run.id = set_aside.this_run)
    from unnest(jobs, reasons) as verdict (job_id, reason)
    where candidate.job_id = verdict.job_id
      and candidate.job_id in (select candidate.job_id from storage_cleanup.candidate
                               where candidate.job_id = any (jobs) order by candidate.job_id for update skip locked)
$$;

-- Candidates that were set aside for another scope than this.
create or replace function storage_cleanup.set_aside_for_others(scope jsonb) returns setof uuid
language sql stable set enable_seqscan = off
as $$
    select job_id from storage_cleanup.candidate where out_of_scope < storage_cleanup.hash(scope::text)
    union all
    select job_id from storage_cleanup.candidate where out_of_scope > storage_cleanup.hash(scope::text)
$$;

-- Takes back what was set aside for another scope: at most 50,000 at a time, and nothing that somebody is writing.
create or replace function storage_cleanup.take_back(scope jsonb) returns void
language sql set enable_seqscan = off
as $$
    update storage_cleanup.candidate set since = completed_at, reason = null, out_of_scope = null
    where job_id in (
        select job_id from storage_cleanup.candidate
        where job_id in (select storage_cleanup.set_aside_for_others(take_back.scope) limit 50000) order by job_id for update skip locked)
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/comparison.sql

-- The comparison of what is noted with what there is: whatever the triggers missed is found here.

-- What the triggers, the tables and the functions that read them were like: whoever changes one of these may have changed
-- what was seen and noted.
create or replace function storage_cleanup.fingerprint() returns text
language sql stable security definer set search_path = ''
as $$
    select md5(string_agg(part, ' ' order by part))
    from (select format('trigger %s %s %s', oid, xmin, tgenabled) as part from pg_trigger
          where tgrelid in (select storage_cleanup.guarded()) and tgname like 'storage\_cleanup\_%'
          union all
          select format('table %s %s %s %s', oid, relfilenode, relrowsecurity, relforcerowsecurity) from pg_class where oid in (select storage_cleanup.guarded())
          union all
          select format('column %s %s %s %s', attrelid, attname, atttypid, attisdropped) from pg_attribute
          where attrelid in (select storage_cleanup.guarded()) and attnum > 0
          union all
          select format('function %s', md5(pg_get_functiondef(oid))) from pg_proc
          where pronamespace = 'storage_cleanup'::regnamespace
            and proname in ('object_key', 'percent_decoded', 'readings', 'paths_in', 'read_part', 'all_of', 'hash', 'bare', 'job_ids_in', 'said_by', 'meant_in', 'meant_by', 'row_key', 'read_of')
          union all
          select format('child %s %s', inhrelid, inhparent) from pg_inherits
          where inhparent in (select storage_cleanup.guarded()) or inhrelid in (select storage_cleanup.guarded())
          union all
          select format('place %s %s %s', of_table::oid, columns, key) from storage_cleanup.place) as parts
$$;

-- What is noted of these rows and isn't so (`is_surplus`), and what is so and isn't noted. Most often nothing.
create or replace function storage_cleanup.differing_among(sources text[], rows jsonb[]) returns table (source text, is_surplus boolean)
language sql stable set search_path = '' set work_mem = '64MB'
as $$
    with said as materialized (select each.source, job::text as what, is_save from storage_cleanup.said_by(sources, rows) as each
                               union all select each.source, object::text, null from storage_cleanup.meant_by(sources, rows) as each),
    noted as materialized (
        select known.source, id::text, is_save from storage_cleanup.mention as known where known.source = any (sources)
        union all
        select known.source, object::text, null from storage_cleanup.reference as known where known.source = any (sources) and job_id is null)
    select source, false from (table said except table noted) as lacking
    union
    select source, true from (table noted except table said) as surplus
$$;

-- Notes what these rows of a table say, as far as something else is noted. Of a row that somebody holds, and may be writing,
-- nothing is taken away: that is left to its own trigger. But what it says is noted, for whoever holds it may leave it as it is.
create or replace function storage_cleanup.compare_sources(of_table oid, sources text[], rows jsonb[], is_first boolean) returns void
language plpgsql set search_path = ''
as $$
#variable_conflict use_variable
declare
    differing text[];
    surplus   text[];
begin
    if is_first then        -- all of them differ
        perform storage_cleanup.note_assets(sources, rows, 'add', false);
        return;
    end if;
    select array_agg(distinct found.source), array_agg(distinct found.source) filter (where is_surplus) into differing, surplus
    from storage_cleanup.differing_among(sources, rows) as found;
    if surplus is not null then
        perform storage_cleanup.note_assets(array_agg(stored.source), array_agg(stored.fields), 'change', false)
        from storage_cleanup.rows_of(of_table, storage_cleanup.lock_rows(of_table, surplus)) as stored having count(*) > 0;
    end if;
    if differing is not null then
        perform storage_cleanup.note_assets(array_agg(stored.source), array_agg(stored.fields), 'add', false)
        from storage_cleanup.rows_of(of_table, differing) as stored having count(*) > 0;
    end if;
    insert into storage_cleanup.reference (source, object, job_id)
    select distinct mention.source, object, job_id from storage_cleanup.mention join storage_cleanup.holder on job_id = id
    where mention.source = any (sources)
      and not exists (select from storage_cleanup.reference as known
                      where known.source = mention.source and known.object = holder.object and known.job_id = holder.job_id);
end $$;

-- The same for jobs. Nobody has seen those complete that are found here; their age counts from now, but in the first look.
create or replace function storage_cleanup.compare_jobs(jobs uuid[], is_first boolean) returns bigint
language plpgsql set search_path = ''
as $$
#variable_conflict use_variable
declare
    seen_at constant timestamptz := case when is_first then 'epoch' else clock_timestamp() end;
    lacking uuid[];
    surplus uuid[];
    missed  bigint;
begin
    if is_first then
        lacking := jobs;
        surplus := '{}';
    else
        with wanted as materialized (
            select distinct id, storage_cleanup.hash(unnest(storage_cleanup.readings(storage_cleanup.read_part(output_url))))
            from storage_cleanup.job() where id = any (jobs)
        ),
        known as materialized (select job_id, object from storage_cleanup.holder where job_id = any (jobs))
        select array(select id from (table wanted except table known) as each),
               array(select job_id from (table known except table wanted) as each)
        into lacking, surplus;
    end if;
    if surplus <> '{}' then
        perform storage_cleanup.note_holders(array_agg(id), array_agg(storage_cleanup.read_part(output_url)), 'change')
        from (select job.id, job.output_url::text from public.render_jobs as job where job.id = any (surplus) for share skip locked) as job;
    end if;
    if lacking <> '{}' or surplus <> '{}' then
        perform storage_cleanup.note_holders(array_agg(id), array_agg(storage_cleanup.read_part(output_url)), 'add')
        from storage_cleanup.job() where id = any (lacking || surplus);
    end if;
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
    select id, greatest(created, seen_at), greatest(created, seen_at), storage_cleanup.has_file(output_url)
    from storage_cleanup.job() as job, storage_cleanup.created(created_at) as created
    where id = any (jobs) and status = 'completed'
      and not exists (select from storage_cleanup.mention where mention.id = job.id)
      and not exists (select from storage_cleanup.candidate where job_id = job.id)
      and not exists (select from storage_cleanup.deletion where job_id = job.id and state <> 'released')
    order by id
    on conflict do nothing;
    get diagnostics missed = row_count;
    return missed;
end $$;

-- Which of these rows are gone, or of a table that is no longer protected?
create or replace function storage_cleanup.gone_among(sources text[]) returns setof text
language sql stable set search_path = ''
as $$
    select unnest(sources)
    except
    select stored.source
    from (select split_part(source, ':', 1)::oid as of_table, array_agg(source) as sources from unnest(sources) as source group by 1) as each
    cross join lateral storage_cleanup.rows_of(each.of_table, each.sources, false) as stored
$$;

-- Forgets what is noted of rows that are gone. The notes are locked first, and then there is a look in a statement of its own:
-- who puts a row back under the same id relies on what is noted of it, and holds that (note_assets).
create or replace function storage_cleanup.forget_gone(sources text[]) returns void
language plpgsql set search_path = ''
as $$
#variable_conflict use_variable
declare
    gone   text[] := array(select storage_cleanup.gone_among(sources));
    locked text[];
begin
    if gone = '{}' then
        return;
    end if;
    locked := array(
        with held as materialized (
            select mention.source, mention.ctid from storage_cleanup.mention where mention.source = any (gone) for update skip locked
        ),
        needed as materialized (
            select reference.source, reference.ctid from storage_cleanup.reference where reference.source = any (gone) for update skip locked
        )
        select each.source from unnest(gone) as each (source)
        where not exists (select from storage_cleanup.mention
                          where mention.source = each.source and mention.ctid not in (select held.ctid from held))
          and not exists (select from storage_cleanup.reference
                          where reference.source = each.source and reference.ctid not in (select needed.ctid from needed)));
    perform storage_cleanup.forget_assets(array(select storage_cleanup.gone_among(locked)));
end $$;

create or replace function storage_cleanup.forget_gone_jobs(jobs uuid[]) returns void
language plpgsql set search_path = ''
as $$
#variable_conflict use_variable
declare
    gone   uuid[] := array(select each.id from unnest(jobs) as each (id) where not exists (select from storage_cleanup.job() as job where job.id = each.id));
    locked uuid[];
begin
    if gone = '{}' then
        return;
    end if;
    locked := array(
        with held as materialized (
            select holder.job_id, holder.ctid from storage_cleanup.holder where holder.job_id = any (gone) for update skip locked
        )
        select each.id from unnest(gone) as each (id)
        where not exists (select from storage_cleanup.holder where holder.job_id = each.id and holder.ctid not in (select held.ctid from held)));
    perform storage_cleanup.forget_jobs(locked);
end $$;

-- The steps of a comparison. The tables come by blocks, the assets before the jobs, so that what they save is no candidate;
-- then what was written meanwhile, and may have moved to where the comparison had been; then what is noted and gone.
create or replace function storage_cleanup.comparison_steps() returns table (step bigint, what text, of_table regclass, columns text[], key text[])
language sql stable set search_path = ''
as $$
    select row_number() over (order by what like 'gone%', what, key is null, of_table), what, of_table, columns, key
    from (select 'by blocks' as what, of_table, columns, key from storage_cleanup.sources()
          union all
          select 'by blocks', 'public.render_jobs', null, null
          union all
          select 'moved', of_table, columns, key from storage_cleanup.sources()
          union all
          select 'moved', 'public.render_jobs', null, null
          union all
          select what, null, null, null from unnest(array['gone jobs', 'gone sources']) as what) as each
$$;

-- Does a part of a step; returns where it goes on, NULL when it is through, and how many jobs were found.
create or replace function storage_cleanup.compare_part(
    work storage_cleanup.comparison, blocks integer, out next_block bigint, out next_after text, out missed bigint)
language plpgsql set search_path = ''
as $$
#variable_conflict use_variable
declare
    part    record;
    chosen  text;
    sources text[];
    rows    jsonb[];
    jobs    uuid[];
begin
    missed := 0;
    select * into part from storage_cleanup.comparison_steps() as each where each.step = work.step;
    if part.of_table is not null then
        chosen := format(case part.what when 'moved' then 'from %s as each where age(each.xmin) <= age(%L::xid)'
                                        else 'from %s as each where each.ctid >= ''(%3$s,0)'' and each.ctid < ''(%4$s,0)''' end,
                         part.of_table, work.began_in::xid, work.block, work.block + blocks);
        if part.key is null then
            execute 'select array_agg(each.id) ' || chosen into jobs;
            missed := storage_cleanup.compare_jobs(coalesce(jobs, '{}'), work.last_at is null);
        else
            execute 'select array_agg(storage_cleanup.source($1, storage_cleanup.row_key(fields, $2))), array_agg(storage_cleanup.read_of(fields, $3))
                     from (select to_jsonb(each.*) as fields ' || chosen || ') as each'
            into sources, rows using part.of_table::oid, part.key, part.columns;
            perform storage_cleanup.compare_sources(part.of_table, sources, rows, work.last_at is null);
        end if;
        if part.what <> 'moved' and (work.block + blocks) * current_setting('block_size')::bigint < pg_relation_size(part.of_table) then
            next_block := work.block + blocks;
        end if;
    elsif part.what = 'gone jobs' and work.last_at is not null then
        jobs := array(select distinct job_id from storage_cleanup.holder
                      where job_id > coalesce(nullif(work.after, ''), '00000000-0000-0000-0000-000000000000')::uuid order by job_id limit 5000);
        perform storage_cleanup.forget_gone_jobs(jobs);
        next_after := jobs[cardinality(jobs)];
    elsif work.last_at is not null then
        sources := array(
            select each.source
            from ((select distinct mention.source from storage_cleanup.mention where mention.source > work.after order by source limit 5000)
                  union
                  (select distinct reference.source from storage_cleanup.reference where reference.source > work.after order by source limit 5000)) as each
            order by each.source limit 5000);
        perform storage_cleanup.forget_gone(sources);
        next_after := sources[cardinality(sources)];
    end if;
end $$;

-- Goes on with the comparison for about half a second, or begins one: what the triggers missed (they were off, or a table was
-- truncated) is noted now. Returns whether it is through, how many jobs it has found, and whether somebody is in the way; no row
-- while somebody else is at it. It waits for nobody for long: a transaction that waits for it as well would be a deadlock's victim.
create or replace function storage_cleanup.compare_slice(blocks integer default 64) returns table (is_done boolean, jobs bigint, is_held_up boolean)
language plpgsql security definer set search_path = '' set enable_seqscan = off set lock_timeout = '200ms'
as $$
#variable_conflict use_variable
declare
    now_like constant text := storage_cleanup.fingerprint();
    until    constant timestamptz := clock_timestamp() + interval '500 milliseconds';
    steps    constant bigint := (select count(*) from storage_cleanup.comparison_steps());
    work     storage_cleanup.comparison;
    part     record;
begin
    select * into work from storage_cleanup.comparison for update skip locked;
    if work is null then
        return;
    end if;
    if work.at_work_on is distinct from now_like then
        work.at_work_on := now_like;
        work.began_in := pg_snapshot_xmin(pg_current_snapshot());
        work.step := 1;
        work.block := 0;
        work.after := '';
        work.found := 0;
    end if;
    is_held_up := false;
    while work.step <= steps loop
        begin
            select * into part from storage_cleanup.compare_part(work, blocks);
        exception when lock_not_available then
            is_held_up := true;
            exit;
        end;
        work.found := work.found + part.missed;
        work.step := work.step + case when coalesce(part.next_block::text, part.next_after) is null then 1 else 0 end;
        work.block := coalesce(part.next_block, 0);
        work.after := coalesce(part.next_after, '');
        exit when clock_timestamp() >= until or blocks = 1;
    end loop;
    is_done := work.step > steps;
    jobs := case when work.last_at is null then 0 else work.found end;
    if is_done then
        work.last_at := clock_timestamp();
        work.fingerprint := now_like;
        work.at_work_on := null;
    end if;
    update storage_cleanup.comparison
    set last_at = work.last_at, fingerprint = work.fingerprint, at_work_on = work.at_work_on, began_in = work.began_in, step = work.step,
        block = work.block, after = work.after, found = work.found;
    return next;
end $$;

-- Whether it is time: once a day, whenever the triggers or the tables have changed, and until one that was begun is through.
create or replace function storage_cleanup.comparison_is_due() returns boolean
language sql stable security definer set search_path = ''
as $$
    select last_at is null or last_at < now() - interval '1 day' or at_work_on is not null
           or fingerprint is distinct from storage_cleanup.fingerprint()
    from storage_cleanup.comparison
$$;

-- Goes on with it when it is time. Once a day, what lies in Storage is remembered, too.
create or replace function storage_cleanup.compare_if_due() returns table (is_done boolean, jobs bigint, is_held_up boolean)
language plpgsql security definer set search_path = ''
as $$
begin
    if not exists (select from storage_cleanup.usage where day = (now() at time zone 'UTC')::date) then
        perform storage_cleanup.remember_usage();
    end if;
    if storage_cleanup.comparison_is_due() then
        return query select * from storage_cleanup.compare_slice();
    end if;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/preflight.sql

-- Trust. Everything here must hold before anything is claimed, and is asserted again in every claim.

-- Why nothing may be deleted: a code and a sentence a reason; no row when all is well.
create or replace function storage_cleanup.distrust() returns table (code text, sentence text)
language sql stable security definer set search_path = ''
as $$
    select 'blind', format('role %s is subject to row-level security on %s: what it can''t see would look unsaved or gone', current_user, blind)
    from unnest(array['storage.objects', 'public.user_assets', 'public.render_jobs']) as blind
    where row_security_active(blind)
    union all       -- what is asked above holds for the owner of this function only
    select 'mixed_owners', 'the functions of schema storage_cleanup belong to several roles: run database/install.sql as the owner of all'
    where (select count(distinct proowner) from pg_proc where pronamespace = 'storage_cleanup'::regnamespace) > 1
    union all
    select 'guard', format('trigger %s on %s is %s, and what it should see might be deleted: run database/install.sql', name, of_table, fault)
    from storage_cleanup.trigger_state() where fault is not null
    union all
    select 'index', format('the index %s is %s: run database/install.sql', name, fault)
    from storage_cleanup.index_state() where fault is not null
    union all
    select code, sentence from storage_cleanup.unsuitable()
    union all
    select code, sentence from storage_cleanup.unfit_places()
    union all
    select 'installing', 'an installation is at work, or was interrupted: wait for it, or run it again'
    from storage_cleanup.gate where opens_at > now()
    union all
    select 'changed', 'the triggers or the tables have changed since everything was last compared: the next cycle compares'
    where storage_cleanup.fingerprint() is distinct from (select fingerprint from storage_cleanup.comparison)
    union all
    select 'replica', 'the database is a read-only replica: use the primary''s address in database/url'
    where pg_is_in_recovery()
$$;

-- Volatile, and in two statements: the lock that the first one keeps to the end is what an installation waits for, and the
-- second one sees what was committed before it was granted.
create or replace function storage_cleanup.assert_trust() returns void
language plpgsql security definer set search_path = ''
as $$
declare
    reasons text;
begin
    perform from storage_cleanup.gate;
    reasons := (select string_agg(sentence, '; ') from storage_cleanup.distrust());
    if reasons is not null then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = reasons;
    end if;
end $$;

-- The buckets as the database knows them, to be compared with what the Storage server answers.
create or replace function storage_cleanup.buckets() returns table (id text, created_at timestamptz)
language sql stable security definer set search_path = ''
as $$ select id, created_at from storage.buckets where created_at between 'epoch' and '9999-12-31' $$;     -- what a client can read

-- The canaries that this database sees: this run's, and what runs that ended or died have left.
create or replace function storage_cleanup.canaries(this_run uuid) returns setof text
language sql stable security definer set search_path = ''
as $$
    select object.name from storage.objects as object
    where object.bucket_id = 'storage-cleanup' and object.name ~ '^canary/[0-9a-f-]{36}$'
      and not exists (select from storage_cleanup.run as other
                      where other.id <> canaries.this_run and other.status = 'running' and object.name = 'canary/' || other.id)
    order by object.name <> 'canary/' || canaries.this_run limit 100
$$;

-- The reference set, counted now: every asset that names a job in the documented place.
create or replace function storage_cleanup.count_saved() returns bigint
language plpgsql stable security definer set search_path = ''
as $$
declare
    saved bigint;
begin
    -- Dynamic, because parallel workers may help with nothing else here.
    execute 'select count(*) from storage_cleanup.mention where is_save' into saved;
    return saved;
end $$;

-- What the reference set is judged by: the highest count of 7 days, of runs that were found good; after a longer pause, that
-- of the last one. Nothing before an override that was carried out counts: somebody has looked, and meant it.
create or replace function storage_cleanup.most_saved() returns bigint
language sql stable security definer set search_path = ''
as $$
    with good as not materialized (
        select started_at, override_of, saved_assets from storage_cleanup.run where not dry_run and saved_assets is not null
    ),
    recent as (
        select * from good where started_at > now() - interval '7 days'
        union all
        (select * from good order by started_at desc limit 1)
    )
    select max(saved_assets) from recent
    where started_at >= (select coalesce(max(started_at), '-infinity') from recent where override_of is not null)
$$;

-- Counts the reference set for this run, again and again while it is at work, and tells what it is judged by: the run's own
-- highest count is part of that, and all of it for an override. Nobody hands in a number: whoever could, could make a loss
-- look like the usual. `before` is null as long as nothing was ever counted.
create or replace function storage_cleanup.judge_saved(this_run uuid) returns table (saved bigint, before bigint)
language plpgsql security definer set search_path = ''
as $$
begin
    saved := storage_cleanup.count_saved();
    before := (select case when override_of is null then greatest(nullif(counted_assets, 0), storage_cleanup.most_saved())
                           else counted_assets end
               from storage_cleanup.run where id = this_run);
    update storage_cleanup.run set counted_assets = greatest(counted_assets, saved) where id = this_run;
    return next;
end $$;

-- What a first run that sees no reference goes by: whether there are assets and more than 20 completed jobs, and the usual
-- keys of the metadata, from a sample.
create or replace function storage_cleanup.first_run_facts() returns table (has_assets boolean, has_jobs boolean, keys text[])
language sql stable security definer set search_path = ''
as $$
    select exists (select from public.user_assets),
           (select count(*) > 20 from (select from storage_cleanup.job() where status = 'completed' limit 21) as completed),
           array(select key
                 from (select fields -> 'metadata' as metadata from storage_cleanup.asset()
                       where jsonb_typeof(fields -> 'metadata') = 'object' limit 200) as sample,
                      jsonb_object_keys(metadata) as key
                 group by key order by count(*) desc, key limit 10)
$$;

-- An age that nobody means: what is that young may still be on its way.
create or replace function storage_cleanup.assert_age(max_age interval) returns void
language plpgsql immutable
as $$
begin
    if (max_age >= interval '1 minute') is not true then
        raise exception using errcode = 'invalid_parameter_value', message = format('max_age is %s, and must be at least one minute', max_age);
    end if;
end $$;

-- Which of these jobs do rows of other tables hang on, by a foreign key that would keep the job, or take them along?
create or replace function storage_cleanup.dependent_among(jobs uuid[]) returns setof uuid
language plpgsql stable security definer set search_path = '' set enable_seqscan = on set jit = off
as $$
declare
    dependence record;
begin
    if jobs = '{}' then
        return;
    end if;
    for dependence in
        select conrelid::regclass as of_table, attname as of_column
        from pg_constraint join pg_attribute on attrelid = conrelid and attnum = conkey[1]
        where contype = 'f' and confrelid = 'public.render_jobs'::regclass and conparentid = 0 and cardinality(conkey) = 1
    loop
        -- One pass, where the column has no index.
        return query execute format('select distinct dependent.%I from %s as dependent where dependent.%1$I = any ($1)',
                                    dependence.of_column, dependence.of_table) using jobs;
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/runs.sql

-- Runs: opened, kept alive, judged by what they leave, closed, forgotten.

-- Makes candidates of what was let go, once their users have had time to take that back. One that is no candidate any more was
-- old enough when it was found saved. At most 50,000 at a time: a whole table of assets may have been emptied.
create or replace function storage_cleanup.take_up_unsaved() returns void
language plpgsql set enable_seqscan = off
as $$
declare
    jobs  uuid[];
    times timestamptz[];
begin
    with taken as (
        delete from storage_cleanup.unsaved
        where ctid = any (array(select ctid from storage_cleanup.unsaved limit 50000 for update skip locked))
        returning job_id, at
    )
    select array_agg(job_id), array_agg(last_at) into jobs, times
    from (select job_id, max(at) as last_at from taken group by job_id) as gone;
    if jobs is null then
        return;
    end if;
    -- Waits for a claim that still saw one of them saved, and is about to forget the candidate for it.
    perform storage_cleanup.hold(jobs, '{}');
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file, unsaved_at)
    select id, storage_cleanup.created(created_at), storage_cleanup.created(created_at), storage_cleanup.has_file(output_url), last_at
    from unnest(jobs, times) as gone (job_id, last_at) join storage_cleanup.job() on id = job_id and status = 'completed'
    order by id
    on conflict (job_id) do update set unsaved_at = greatest(candidate.unsaved_at, excluded.unsaved_at);
end $$;

-- Records that a run has started, before anything is known of the project. Runs that died are closed first.
create or replace function storage_cleanup.open_run(this_run uuid, trigger text, dry_run boolean, options jsonb, scope jsonb) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    update storage_cleanup.run as dead
    set status = 'failed', finished_at = clock_timestamp(), summary = '{"message": "the run did not finish", "died": true}'
    where storage_cleanup.has_died(dead);

    insert into storage_cleanup.run (id, trigger, dry_run, options, scope)
    values (open_run.this_run, open_run.trigger, open_run.dry_run, open_run.options, open_run.scope);
end $$;

-- Begins a run: from now on it may claim.
create or replace function storage_cleanup.start_run(
    this_run uuid, trigger text, dry_run boolean, options jsonb, scope jsonb, override_of uuid) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    if not exists (select from storage_cleanup.run where id = this_run) then
        perform storage_cleanup.open_run(this_run, trigger, dry_run, options, scope);
    end if;
    perform storage_cleanup.take_up_unsaved();
    perform storage_cleanup.take_back(start_run.scope);

    -- An override is judged by what is there now, and settles it, even when there is nothing left for it to delete.
    if start_run.override_of is not null then
        update storage_cleanup.run
        set override_of = start_run.override_of, counted_assets = storage_cleanup.count_saved()
        where id = start_run.this_run;
    end if;
end $$;

-- The dry run of that id, and whether it may still be carried out.
create or replace function storage_cleanup.plan(plan uuid)
returns table (options jsonb, scope jsonb, finished boolean, fresh boolean, used boolean)
language sql stable security definer set search_path = ''
as $$
    select run.options, run.scope, status in ('succeeded', 'partial'), started_at > now() - interval '24 hours',
           exists (select from storage_cleanup.run as later where later.override_of = run.id)
    from storage_cleanup.run where id = plan.plan and dry_run
$$;

-- Did the run end without a word? An invocation lives for 15 minutes at most. Its claims are leases, which end by themselves.
create or replace function storage_cleanup.has_died(run storage_cleanup.run) returns boolean
language sql stable security definer set search_path = ''
as $$
    select (run).status = 'running' and (run).started_at < clock_timestamp() - interval '16 minutes'
$$;

-- Claims that are unfinished, and those among them that keep failing.
create or replace function storage_cleanup.unfinished() returns table (claims bigint, stuck bigint)
language sql stable security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select count(*), count(*) filter (where state = 'claimed' and attempts >= 3)
    from storage_cleanup.deletion where state in ('claimed', 'file_deleted')
$$;

-- What is unfinished and not this run's to finish now, with the reason: by phase, so that a run can account for it.
create or replace function storage_cleanup.left_alone(this_run uuid) returns table (phase text, reason text, found bigint)
language sql stable security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select 'storage_files', case when quiet_at >= clock_timestamp() then 'claimed_by_another_run' else 'tried_in_vain' end, count(*)
    from storage_cleanup.deletion
    where state = 'claimed' and run_id <> this_run
      and (quiet_at >= clock_timestamp() or attempts >= 5 and attempted_at >= clock_timestamp() - interval '15 minutes')
    group by 1, 2
    union all
    select 'render_jobs', 'claimed_by_another_run', count(*)
    from storage_cleanup.deletion
    where state = 'file_deleted' and run_id is distinct from this_run and quiet_at >= clock_timestamp()
    having count(*) > 0
    union all
    select 'render_jobs', 'row_protected', count(*)
    from storage_cleanup.deletion
    where state = 'file_deleted' and run_id is distinct from this_run and attempts >= 3 and updated_at >= now() - interval '1 hour'
    having count(*) > 0
$$;

-- How many orphans past the age wait, and how many claims are unfinished. Candidates that have been saved meanwhile are
-- left out as far as the first 2000 go: of a long backlog, the number is an upper bound.
create or replace function storage_cleanup.remaining(max_age interval, grace interval) returns bigint
language sql stable security definer set search_path = ''
as $$
    with waiting as (
        select (select count(*) from storage_cleanup.candidate where has_file and since < now() - max_age)
             + (select count(*) from storage_cleanup.candidate where not has_file and since < now() - max_age)
             - (select count(*) from storage_cleanup.candidate where unsaved_at >= now() - grace and since < now() - max_age) as count
    ),
    saved as (
        select count(*) from storage_cleanup.saved_among(array(
            select job_id from storage_cleanup.candidate
            where since < now() - max_age and (unsaved_at is null or unsaved_at < now() - grace) limit 2000))
    )
    select waiting.count - saved.count
         + (select claims from storage_cleanup.unfinished())
    from waiting, saved
$$;

-- What a run leaves for the next: orphans past the age with unfinished claims, the claims that keep failing, and what this
-- run had to leave to others or to later.
create or replace function storage_cleanup.backlog(this_run uuid, max_age interval, grace interval)
returns table (remaining bigint, stuck bigint, left_alone jsonb)
language sql stable security definer set search_path = ''
as $$
    select storage_cleanup.remaining(max_age, grace)
           + (select count(*) from storage_cleanup.run cross join lateral storage_cleanup.set_aside_for_others(run.scope) where run.id = this_run),
           (select stuck from storage_cleanup.unfinished()),
           coalesce((select jsonb_agg(jsonb_build_array(phase, reason, found)) from storage_cleanup.left_alone(this_run)), '[]')
$$;

-- Closes a run. What a run that was found good had counted is part of what the next ones are
-- judged by; an override that failed has settled nothing.
create or replace function storage_cleanup.finish_run(this_run uuid, status text, summary jsonb, found_good boolean) returns void
language sql security definer set search_path = ''
as $$
    update storage_cleanup.run
    set status = finish_run.status, summary = finish_run.summary,
        saved_assets = case when found_good and (override_of is null or finish_run.status <> 'failed') then counted_assets end,
        finished_at = clock_timestamp()
    where id = finish_run.this_run
$$;

-- Forgets what is finished and older than `keep`, a slice at a time, and plans that can't be used any more. Runs and usage
-- are few and small, and stay four times as long: reports look back at a year.
create or replace function storage_cleanup.prune(keep interval) returns void
language sql security definer set search_path = ''
as $$
    delete from storage_cleanup.deletion where (job_id, id) in (
        select job_id, id from storage_cleanup.deletion
        where state in ('done', 'released') and updated_at < now() - keep
        order by updated_at limit 10000 for update skip locked);
    delete from storage_cleanup.run
    where status <> 'running' and started_at < now() - greatest(4 * keep, interval '7 days')
      and id is distinct from (select id from storage_cleanup.run     -- however long nothing was to be done since
                               where not dry_run and saved_assets is not null order by started_at desc limit 1);
    delete from storage_cleanup.usage where day < now() - 4 * keep;
    delete from storage_cleanup.plan_job where run_id in (
        select id from storage_cleanup.run where dry_run and started_at < now() - interval '2 days');
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/claim.sql

-- Claims. What may go is decided in one place, which writes nothing: a dry run is that decision.

-- What becomes of these jobs, each with the object that the parser has found in its URL. Other jobs that may mean one of the
-- objects keep it, for only the parser can tell what their URLs mean:
--   - one that could go as well is returned as 'unasked', with its URL, so that the caller may ask for it, too
--   - one whose URL is among `foreign_urls` names another host, by the parser's judgement. It is never claimed, and keeps
--     the object only while somebody saves it: a host that nobody has told us of may be this project's all the same
--
-- outcome 'claimed': the file may go; 'already_missing': there is no such file; anything else is the reason to keep it.
-- `free` and `free_keys`: the jobs and objects whose locks this transaction has; NULL for all.
create or replace function storage_cleanup.decide(
    jobs uuid[], keys text[], foreign_urls text[], max_age interval, grace interval, owners_only boolean, keep_dependents boolean,
    plan uuid, free uuid[], free_keys text[])
returns table (job_id uuid, outcome text, bucket_id text, object_name text, bytes bigint, output_url text, completed_at timestamptz, version text)
language plpgsql stable security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    holding   uuid[];      -- every job that points at one of the objects
    crowded   text[];      -- objects that too many do
    saved     uuid[];
    needed    text[];
    dependent uuid[] := '{}';
begin
    with held as materialized (
        select key, holder.job_id as job, count(*) over (partition by key) > 1000 as is_crowded
        from (select distinct unnest(keys) as key) as wanted
        cross join lateral (
            select job_id from storage_cleanup.holder
            where object = any (array[storage_cleanup.hash(key), storage_cleanup.hash(storage_cleanup.bare(key))]) limit 1001) as holder
    )
    select array(select distinct job from held where not is_crowded), array(select distinct key from held where is_crowded)
    into holding, crowded;
    saved := array(select storage_cleanup.saved_among(holding));
    needed := array(select storage_cleanup.needed_among(keys));
    if keep_dependents then
        dependent := array(select storage_cleanup.dependent_among(holding));
    end if;

    return query
    with object as (
        select wanted.key, split_part(wanted.key, '/', 1) as bucket, substr(wanted.key, position('/' in wanted.key) + 1) as name,
               stored.id is not null as present, free_keys is null or wanted.key in (select unnest(free_keys)) as is_free,
               greatest(stored.created_at, stored.updated_at) as touched_at,
               storage_cleanup.size_of(stored.metadata) as size,
               storage_cleanup.version(stored.id, stored.version) as version,
               -- Whoever uploaded it; for what the service role did, whoever's folder it lies in.
               coalesce(stored.owner_id, stored.owner::text, (string_to_array(stored.name, '/'))[1]) as owner
        from (select distinct unnest(keys) as key) as wanted
        left join lateral (     -- one look into the unique index for each, whatever the planner thinks of the number
            select object.id, object.created_at, object.updated_at, object.metadata, object.version, object.owner_id, object.owner, object.name
            from storage.objects as object
            where object.bucket_id = split_part(wanted.key, '/', 1)
              and object.name = substr(wanted.key, position('/' in wanted.key) + 1)
            limit 1) as stored on true
    ),
    holder as materialized (     -- each reason is found once
        select job.id, object.key, job.output_url, candidate.completed_at, case
            when free is not null and job.id not in (select unnest(free)) then 'locked'
            when save.id is not null then 'saved'
            when asked.id is null and job.output_url = any (foreign_urls) then 'foreign_host'
            when asked.id is null and job.id = any (jobs) then 'job_changed'
            when asked.id is not null and storage_cleanup.object_key(job.output_url) is distinct from object.key then 'job_changed'
            when job.status is distinct from 'completed' then 'job_not_completed'
            when ledger.id is not null then 'already_claimed'
            when not present and exists (       -- done, and the row has stayed: it may have got another file since
                select from storage_cleanup.deletion as known
                where known.job_id = job.id and known.state = 'done' and known.bucket_id || '/' || known.object_name = object.key) then 'already_claimed'
            when octet_length(job.output_url) > 8192 then 'too_long'
            when exists (       -- only where it has several readings
                select from storage_cleanup.holder as other
                where other.job_id = job.id and other.object <> storage_cleanup.hash(object.key))
             and exists (
                select from unnest(storage_cleanup.readings(job.output_url)) as other
                join storage.objects as meant
                    on meant.bucket_id = split_part(other, '/', 1) and meant.name = substr(other, position('/' in other) + 1)
                where other <> object.key) then 'ambiguous_url'
            -- One that is no candidate hasn't been seen to complete: it waits until it is found (compare).
            when (greatest(job.created_at, candidate.completed_at) < now() - max_age and candidate.job_id is not null) is not true
                then 'job_too_young'
            when candidate.unsaved_at >= now() - grace
                 or exists (select from storage_cleanup.unsaved where unsaved.job_id = job.id and at >= now() - grace)
                then 'just_unsaved'
            when exists (select from storage_cleanup.reference where reference.object in (storage_cleanup.hash(storage_cleanup.all_of(job.user_id)), storage_cleanup.hash(storage_cleanup.all_of(null))))
                then 'asset_unread'
            when owners_only and present and job.user_id is distinct from object.owner then 'not_the_owners'
            when job.id = any (dependent) then 'has_dependents'
            when plan is not null and planned.job_id is null then 'not_in_plan'
            when asked.id is null then 'unasked'
            end as own_reason
        from object
        cross join lateral (
            select distinct job_id as id from storage_cleanup.holder
            where object.key <> all (crowded)
              and holder.object = any (array[storage_cleanup.hash(object.key), storage_cleanup.hash(storage_cleanup.bare(object.key))])) as held
        join storage_cleanup.job() as job on job.id = held.id
        left join unnest(saved) as save (id) on save.id = job.id
        left join unnest(jobs, keys) as asked (id, key) on asked.id = job.id and asked.key = object.key
        left join storage_cleanup.deletion as ledger on ledger.job_id = job.id and ledger.state in ('claimed', 'file_deleted')
        left join storage_cleanup.candidate on candidate.job_id = job.id
        left join storage_cleanup.plan_job as planned on planned.run_id = plan and planned.job_id = job.id
    ),
    decided as (
        select holder.id, holder.output_url, holder.completed_at, holder.id in (select unnest(jobs)) as is_asked, object.*, case
            when not object.is_free then 'locked'
            else coalesce(own_reason, case
                when bool_or(own_reason = 'locked') over same_object then 'locked'
                when bool_or(own_reason not in ('already_claimed', 'foreign_host', 'not_the_owners')) over same_object then 'shared_with_kept_job'
                when object.key = any (needed) then 'asset_points_at_file'
                when present and (touched_at < now() - max_age) is not true then 'file_too_young'
                when present then 'claimed'
                else 'already_missing' end) end as outcome,
            bool_or(own_reason not in ('already_claimed', 'foreign_host', 'not_the_owners', 'unasked')) over same_object is true as is_kept
        from holder join object using (key)
        window same_object as (partition by holder.key)
    )
    select id, decided.outcome, bucket, name, size,
           case when decided.outcome = 'unasked' and octet_length(decided.output_url) <= 8192 then decided.output_url end,
           decided.completed_at, decided.version
    from decided
    where is_asked or decided.outcome = 'unasked' and not is_kept
    union all
    select id, 'shared_by_many', null, null, 0, null, null, null from unnest(jobs, keys) as asked (id, key) where key = any (crowded)
    union all
    select id, 'job_changed', null, null, 0, null, null, null      -- its URL isn't what it was when the page was read
    from unnest(jobs, keys) as asked (id, key)
    where key <> all (crowded) and not exists (select from decided where decided.id = asked.id);
end $$;

-- What has to be so for any claim.
create or replace function storage_cleanup.assert_may_claim(this_run uuid, max_age interval) returns void
language plpgsql
as $$
begin
    perform storage_cleanup.assert_trust();
    perform storage_cleanup.assert_age(max_age);
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'claims are made at read committed, or the second look would see no more than the first';
    end if;
end $$;

-- Claims what may go of these jobs, and says why the rest is kept.
create or replace function storage_cleanup.claim(
    this_run uuid, jobs uuid[], keys text[], max_age interval, dry_run boolean, plan uuid, foreign_urls text[] default '{}',
    grace interval default '0', owners_only boolean default true, keep_dependents boolean default true)
returns table (job_id uuid, outcome text, bucket_id text, object_name text, bytes bigint, output_url text)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    objects   bigint[];
    taken     integer[];
    free_keys text[];
    free      uuid[];
begin
    perform storage_cleanup.assert_may_claim(this_run, max_age);

    if not dry_run then
        -- First the objects' locks …
        objects := array(select storage_cleanup.hash(key) from unnest(keys) as key
                         union select storage_cleanup.hash(storage_cleanup.bare(key)) from unnest(keys) as key);
        taken := storage_cleanup.take(storage_cleanup.slots('{}', objects));
        free_keys := array(
            select key
            from (select distinct key, storage_cleanup.hash(key) & 8191 as slot, storage_cleanup.hash(storage_cleanup.bare(key)) & 8191 as bare_slot
                  from unnest(keys) as key) as wanted
            join unnest(taken) as own (slot) using (slot)
            join unnest(taken) as bare (bare_slot) using (bare_slot));
        -- … then those of the jobs that hold them, for none can be added now …
        free := storage_cleanup.take_jobs(storage_cleanup.holders_of(objects));
    end if;
    -- … and only then, in statements of their own, a look at who needs them.
    return query
    with decided as materialized (
        select * from storage_cleanup.decide(jobs, keys, foreign_urls, max_age, grace, owners_only, keep_dependents, plan, free, free_keys)
    ),
    ledgered as (
        insert into storage_cleanup.deletion
            (job_id, run_id, state, bucket_id, object_name, object, bare, version, bytes, job, completed_at, quiet_at)
        select decided.job_id, this_run, case outcome when 'claimed' then 'claimed' else 'file_deleted' end,
               decided.bucket_id, decided.object_name,
               storage_cleanup.hash(decided.bucket_id || '/' || decided.object_name), storage_cleanup.hash('*/' || decided.object_name),
               decided.version, decided.bytes, storage_cleanup.without_long_values(job.fields), decided.completed_at,
               case outcome when 'claimed' then storage_cleanup.quiet_at(clock_timestamp()) end
        from decided join storage_cleanup.job() as job on job.id = decided.job_id
        where outcome in ('claimed', 'already_missing') and not dry_run
    ),
    planned as (
        insert into storage_cleanup.plan_job (run_id, job_id, has_file)
        select this_run, decided.job_id, true from decided where outcome in ('claimed', 'already_missing') and dry_run
        on conflict do nothing
    ),
    parked as (
        select storage_cleanup.park(array_agg(decided.job_id), array_agg(outcome), max_age) from decided
        where outcome <> 'unasked' having not dry_run
    )
    select decided.job_id, decided.outcome, decided.bucket_id, decided.object_name, decided.bytes, decided.output_url
    from decided cross join (select count(*) from parked) as noted;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/confirm.sql

-- Which of these claims are of an object that is another upload by now, or of a job that was rendered again since? And is
-- there an object of that name?
create or replace function storage_cleanup.replaced_among(jobs uuid[]) returns table (job_id uuid, is_there boolean)
language sql stable security definer set search_path = '' set enable_seqscan = off
as $$
    select claim.job_id, stored.id is not null
    from unnest(jobs) as asked (job_id)
    cross join lateral (
        select * from storage_cleanup.deletion as ledger where ledger.job_id = asked.job_id and state = 'claimed' limit 1) as claim
    left join lateral (
        select object.id, object.version from storage.objects as object
        where object.bucket_id = claim.bucket_id and object.name = claim.object_name limit 1) as stored on true
    left join storage_cleanup.job() as job on job.id = claim.job_id
    left join storage_cleanup.candidate as again on again.job_id = claim.job_id
    where storage_cleanup.version(stored.id, stored.version) <> claim.version or job.status <> 'completed' or again.completed_at > claim.claimed_at
$$;

-- When no request for a claim can be at work any more, whatever became of whoever made it, or adopted it, at that time: a
-- claim may be acted on for 60 seconds, a request takes 30 till the client gives up, and 30 till the server does. Before that,
-- nobody may take the claim for settled: the name could be used again, and saved, and removed by that request.
create or replace function storage_cleanup.quiet_at(since timestamptz) returns timestamptz
language sql stable parallel safe
return since + interval '150 seconds';

-- The next claims whose lease is over, or whose request has ended, locked.
create or replace function storage_cleanup.abandoned(this_run uuid, batch_size integer) returns setof uuid
language sql security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select deletion.job_id from storage_cleanup.deletion
    where state = 'claimed' and run_id <> this_run
      and (attempts < 5 or attempted_at < clock_timestamp() - interval '15 minutes') and (quiet_at < clock_timestamp()) is not false
    order by deletion.job_id limit batch_size
    for update of deletion skip locked
$$;

-- Takes over claims that another run has left. Removing a file twice is harmless, so they are simply finished;
-- but a claim that failed five times is given up, once no request for it can still be under way.
create or replace function storage_cleanup.adopt(this_run uuid, batch_size integer)
returns table (job_id uuid, outcome text, bucket_id text, object_name text, bytes bigint)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    adopted uuid[];
    keys    text[];
    holders uuid[];
    replaced uuid[];
    needed  text[];      -- objects that somebody saved, by whatever job
    saved   uuid[];
begin
    perform storage_cleanup.assert_trust();
    adopted := array(select storage_cleanup.abandoned(this_run, batch_size));
    -- Jobs that share a file make one file: they are taken together.
    adopted := adopted || array(
        select other.job_id
        from storage_cleanup.deletion as one
        join storage_cleanup.deletion as other
            on other.object = one.object
        where one.job_id = any (adopted) and one.state = 'claimed' and other.job_id <> all (adopted)
          and other.state = 'claimed' and other.run_id <> this_run
          and (other.quiet_at < clock_timestamp()) is not false
        order by other.job_id
        for update of other skip locked);
    -- No save passes while a claim stands; if one did (the triggers were off), the file stays.
    keys := array(select bucket_id || '/' || object_name from storage_cleanup.deletion where state = 'claimed' and deletion.job_id = any (adopted));
    holders := array(select storage_cleanup.saved_among(adopted || array(
        select job_id from storage_cleanup.holder
        where object in (select storage_cleanup.hash(key) from unnest(keys) as key
                         union select storage_cleanup.hash(storage_cleanup.bare(key)) from unnest(keys) as key))));
    needed := array(
        select bucket_id || '/' || object_name from storage_cleanup.deletion
        where state = 'claimed' and deletion.job_id = any (adopted)
          and (deletion.job_id = any (holders)
               or exists (select from storage_cleanup.holder
                          where holder.job_id = any (holders) and holder.object in (deletion.object, deletion.bare)))
        union select storage_cleanup.needed_among(keys));
    saved := array(select deletion.job_id from storage_cleanup.deletion
                   where state = 'claimed' and deletion.job_id = any (adopted) and bucket_id || '/' || object_name = any (needed));
    perform storage_cleanup.release(saved, 'saved');
    replaced := array(select replaced.job_id from storage_cleanup.replaced_among(adopted) as replaced except select unnest(saved));
    perform storage_cleanup.release(replaced, 'rendered_again');
    return query
    with given_up as (
        select deletion.job_id, deletion.bucket_id, deletion.object_name from storage_cleanup.deletion
        where state = 'claimed' and deletion.job_id = any (adopted) and deletion.job_id <> all (saved || replaced) and attempts >= 5
    ),
    released as (
        select storage_cleanup.release(array_agg(job_id), 'stuck') from given_up
    ),
    resumed as (
        update storage_cleanup.deletion
        set run_id = this_run, quiet_at = storage_cleanup.quiet_at(clock_timestamp()), updated_at = clock_timestamp()
        where state = 'claimed' and deletion.job_id = any (adopted) and deletion.job_id <> all (saved || replaced)
          and deletion.job_id not in (select job_id from given_up)
        returning deletion.job_id, deletion.bucket_id, deletion.object_name, deletion.bytes
    )
    select job_id, 'claimed', bucket_id, object_name, bytes from resumed
    union all
    select job_id, 'stuck', bucket_id, object_name, 0 from given_up cross join (select count(*) from released) as done
    union all
    select job, case when job = any (holders) then 'saved' else 'shared_with_kept_job' end, null, null, 0
    from unnest(saved) as job
    union all
    select job, 'rendered_again', null, null, 0 from unnest(replaced) as job;
end $$;

-- Gives claims back: the job can be saved again, and is looked at again later. Only for claims whose removal was never
-- asked for, or so long ago that no request can still be under way.
create or replace function storage_cleanup.release(jobs uuid[], reason text) returns void
language sql security definer set search_path = ''
as $$
    with released as (
        update storage_cleanup.deletion
        set state = 'released', last_error = coalesce(last_error, release.reason), updated_at = clock_timestamp()
        where job_id = any (jobs) and state in ('claimed', 'file_deleted')
        returning job_id, coalesce(completed_at, now()) as completed_at
    )
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file, reason)
    select id, case release.reason when 'stuck' then now() + interval '1 hour' when 'row_protected' then now()
                    else released.completed_at end,
           released.completed_at, storage_cleanup.has_file(output_url), release.reason
    from released join storage_cleanup.job() on id = job_id
    on conflict do nothing
$$;

-- Gives back claims that this run has made and never sent to Storage: somebody stopped it in between. Not those that it
-- adopted: nobody knows what the run before has asked for. Not those that another run has taken over meanwhile. Returns
-- the jobs whose claims this run still had.
create or replace function storage_cleanup.give_back(this_run uuid, jobs uuid[]) returns setof uuid
language plpgsql security definer set search_path = ''
as $$
declare
    mine uuid[] := array(
        select job_id from storage_cleanup.deletion
        where job_id = any (jobs) and run_id = this_run and state = 'claimed' and attempts = 0
        order by job_id for update);
begin
    perform storage_cleanup.release(mine, 'given_back');
    return query select unnest(mine);
end $$;

-- Gives back what dead runs have claimed and not removed, for a system that is switched off: nobody would finish it, and
-- its jobs could not be saved meanwhile. Nobody knows what a dead run has asked Storage for. But an invocation lives for 15
-- minutes at most, and what it asks for at the end takes less than one more (20 seconds until the client gives up, 30 until
-- the server does). A file that is there after that stays; a claim whose file is gone is left to a run that may finish it.
create or replace function storage_cleanup.give_back_abandoned() returns bigint
language plpgsql security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    long_ago  constant timestamptz := clock_timestamp() - interval '16 minutes';
    abandoned uuid[] := array(
        select claim.job_id from storage_cleanup.deletion as claim
        left join storage_cleanup.run as owner on owner.id = claim.run_id
        where claim.state = 'claimed' and (owner.id is null or owner.started_at < long_ago)
          and claim.claimed_at < long_ago and (claim.attempted_at < long_ago) is not false
          and exists (select from storage.objects as stored
                      where stored.bucket_id = claim.bucket_id and stored.name = claim.object_name)
        order by claim.job_id limit 10000
        for update of claim skip locked);
begin
    perform storage_cleanup.release(abandoned, 'given_back');
    return cardinality(abandoned);
end $$;

-- A file is gone when storage.objects says so. Marks those, counts an attempt for the others, and says which is which. Where
-- another upload has taken the name meanwhile, that one isn't ours: the claim is given back. But not yet while a request is open,
-- for it got no answer: Storage carries it out all the same, later.
create or replace function storage_cleanup.settle(this_run uuid, jobs uuid[], error text, is_open boolean)
returns table (job_id uuid, gone boolean, is_replaced boolean)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    replaced uuid[];
begin
    perform storage_cleanup.assert_trust();
    replaced := array(select replaced.job_id from storage_cleanup.replaced_among(jobs) as replaced where is_there);
    if not is_open then
        perform storage_cleanup.release(replaced, 'rendered_again');
    end if;
    return query
    with checked as materialized (      -- one look into each index for each job, whatever the planner thinks of the ledger
        select claim.job_id, stored.id is null as gone
        from unnest(jobs) as asked (job_id)
        cross join lateral (
            select * from storage_cleanup.deletion as ledger
            where ledger.job_id = asked.job_id and ledger.state = 'claimed' limit 1) as claim
        left join lateral (
            select object.id from storage.objects as object
            where object.bucket_id = claim.bucket_id and object.name = claim.object_name limit 1) as stored on true
        where asked.job_id <> all (replaced)
    )
    update storage_cleanup.deletion
    set state = case when gone then 'file_deleted' else 'claimed' end,
        attempts = case when gone then 0 else attempts + 1 end,     -- once it is gone, attempts at the row are counted
        attempted_at = clock_timestamp(), updated_at = clock_timestamp(),
        quiet_at = case when is_open then storage_cleanup.quiet_at(clock_timestamp()) end,
        last_error = case when not gone then coalesce(error, 'Storage answered, but the object is still there') end
    from checked
    where deletion.job_id = checked.job_id and deletion.state = 'claimed'
    returning deletion.job_id, gone, false;
    return query select unnest(replaced), false, true;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/rows.sql

-- The next page of rows that other runs have left: their file is gone. One that keeps failing is not asked every time.
create or replace function storage_cleanup.leftover_rows(this_run uuid, after_job uuid, page_size integer) returns setof uuid
language sql stable security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select job_id from storage_cleanup.deletion
    where state = 'file_deleted' and job_id > after_job and run_id is distinct from this_run
      and (attempts < 3 or updated_at < now() - interval '1 hour') and (quiet_at < clock_timestamp()) is not false
    order by job_id limit page_size
$$;

-- Deletes rows, and says which are gone. It has no rights of its own, but those of delete_rows, which alone may call it.
-- The application's triggers run in this and find their tables as they do elsewhere. And delete_rows' settings don't hold
-- here, for they would hold for foreign keys, too: a table that references render_jobs without an index has to be scanned,
-- and a scan that seems to cost 1e10 is compiled each time. The subquery hides how many jobs there are, so they are looked
-- up in the primary key, however many.
create or replace function storage_cleanup.remove_rows(jobs uuid[]) returns uuid[]
language plpgsql set search_path = public, extensions, pg_temp set enable_seqscan = on set jit = off
as $$
begin
    delete from public.render_jobs as job where job.id = any (array(select unnest(remove_rows.jobs)));
    set constraints all immediate;      -- a deferred foreign key must speak here, not at commit
    return array(select unnest(jobs) except
                 select job.id from public.render_jobs as job where job.id = any (array(select unnest(remove_rows.jobs))));
end $$;

-- Deletes the rows of those of these jobs whose file is known to be gone. One that can't go (a foreign key, a trigger) is
-- reported and stays, and the others still go. One that a trigger or a rule of the application keeps (a soft delete) is
-- asked for three times, or until it has been changed instead; then it is done, although its row is still there.
create or replace function storage_cleanup.delete_rows(this_run uuid, jobs uuid[], keep_dependents boolean default true)
returns table (job_id uuid, outcome text, detail text)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    batch   uuid[];
    saved   uuid[];
    kept    uuid[];
    early   uuid[];      -- Storage may be at work for them
    needed  uuid[] := '{}';      -- rows of other tables refer to them by now; none can be added, for the jobs' rows are locked
    locked  uuid[];
    removed uuid[];
    staying uuid[] := '{}';     -- deleted without an error, and still there
    waiting uuid[];      -- neither kept nor locked: gone already, or in somebody else's hands
    missing uuid[];
    refused uuid[] := '{}';
    one     uuid;
begin
    perform storage_cleanup.assert_trust();
    early := array(
        select deletion.job_id from storage_cleanup.deletion
        where deletion.job_id = any (jobs) and state = 'file_deleted' and quiet_at >= clock_timestamp());
    batch := array(
        select deletion.job_id from storage_cleanup.deletion
        where deletion.job_id = any (jobs) and deletion.job_id <> all (early) and state = 'file_deleted'
        order by deletion.job_id
        for update skip locked);
    locked := array(
        select job.id from (select unnest(batch) as id) as wanted join public.render_jobs as job on job.id = wanted.id
        order by job.id for update of job skip locked);

    -- Nobody can save these; but a row that somebody needs is worth more than order.
    saved := array(select storage_cleanup.saved_among(batch));
    kept := array(     -- rendered again, or uploaded again under the same name
        select job.id from storage_cleanup.job() as job
        join storage_cleanup.deletion as ledger on ledger.job_id = job.id and ledger.state = 'file_deleted'
        left join lateral (
            select object.id from storage.objects as object
            where object.bucket_id = ledger.bucket_id and object.name = ledger.object_name limit 1) as stored on true
        where job.id = any (batch)
          and (stored.id is not null or job.status is distinct from 'completed'
               or exists (select from storage_cleanup.candidate as again
                          where again.job_id = job.id and again.completed_at > ledger.claimed_at)
               or case when ledger.object_name is null then storage_cleanup.has_file(job.output_url)
                       when job.output_url = ledger.job ->> 'output_url' then false
                       else storage_cleanup.object_key(job.output_url)
                            is distinct from ledger.bucket_id || '/' || ledger.object_name end));
    perform storage_cleanup.release(saved || kept, 'saved or rendered again');
    locked := array(select unnest(locked) except select unnest(saved || kept));
    if keep_dependents then
        needed := array(select storage_cleanup.dependent_among(locked));
        locked := array(select unnest(locked) except select unnest(needed));
        update storage_cleanup.deletion
        set attempts = attempts + 1, last_error = 'rows of other tables refer to the job', updated_at = clock_timestamp()
        where deletion.job_id = any (needed) and state = 'file_deleted';
        perform storage_cleanup.release(array(
            select deletion.job_id from storage_cleanup.deletion
            where deletion.job_id = any (needed) and state = 'file_deleted' and object_name is null), 'row_protected');
    end if;

    begin
        removed := storage_cleanup.remove_rows(locked);
        staying := array(select unnest(locked) except select unnest(removed));
    exception when others then              -- one row is in the way: find it, let the others go
        removed := '{}';
        staying := '{}';
        foreach one in array locked loop
            begin
                if one = any (storage_cleanup.remove_rows(array[one])) then
                    removed := removed || one;
                else
                    staying := staying || one;
                end if;
            exception when others then
                update storage_cleanup.deletion
                set attempts = attempts + 1, last_error = sqlerrm, updated_at = clock_timestamp()
                where deletion.job_id = one and state = 'file_deleted';
                refused := refused || one;
                return query select one, case when sqlstate in ('23503', '23001') then 'foreign_key' else 'refused' end, sqlerrm;
            end;
        end loop;
        -- A job that never had a file has lost nothing: it can be saved again.
        perform storage_cleanup.release(array(
            select deletion.job_id from storage_cleanup.deletion
            where deletion.job_id = any (refused) and state = 'file_deleted' and object_name is null), 'row_protected');
    end;
    update storage_cleanup.deletion as ledger
    set attempts = attempts + 1, last_error = 'a trigger or a rule of the application keeps the row', updated_at = clock_timestamp(),
        state = case when attempts < 2 and job.status = 'completed'
                      and (object_name is null and not storage_cleanup.has_file(job.output_url)
                           or storage_cleanup.object_key(job.output_url) = ledger.bucket_id || '/' || object_name)
                     then state else 'done' end
    from storage_cleanup.job() as job
    where ledger.job_id = any (staying) and ledger.state = 'file_deleted' and job.id = ledger.job_id;
    waiting := array(select unnest(batch) except select unnest(saved || kept || needed || locked));
    missing := array(select unnest(waiting) except select id from storage_cleanup.job() where id = any (waiting));
    return query
    with finished as (
        update storage_cleanup.deletion
        set state = 'done', last_error = null, updated_at = clock_timestamp()
        where deletion.job_id = any (removed || missing) and state = 'file_deleted'
        returning deletion.job_id
    )
    select job_id, case when job_id = any (missing) then 'already_missing' else 'deleted' end, null from finished
    union all
    select job, 'locked', null from unnest(waiting) as job where job <> all (missing)
    union all
    select job, 'saved', null from unnest(saved) as job
    union all
    select job, 'rendered_again', null from unnest(kept) as job where job <> all (saved)
    union all
    select job, 'foreign_key', 'rows of other tables refer to the job' from unnest(needed) as job
    union all
    select job, 'kept_by_trigger', null from unnest(staying) as job
    union all
    select job, 'request_at_work', null from unnest(early) as job
    union all
    select job, 'taken_over', null from unnest(jobs) as job where job <> all (batch || early);
end $$;

-- Claims old, unsaved, completed jobs that never had a file. There is nothing to remove, so delete_rows may follow at once.
create or replace function storage_cleanup.claim_fileless(
    this_run uuid, jobs uuid[], max_age interval, dry_run boolean, plan uuid, grace interval default '0',
    keep_dependents boolean default true)
returns table (job_id uuid, outcome text, detail text)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    locked    uuid[];
    saved     uuid[];
    dependent uuid[] := '{}';
    going     uuid[];
begin
    perform storage_cleanup.assert_may_claim(this_run, max_age);
    if dry_run then
        locked := array(select id from storage_cleanup.job() where id = any (jobs));
    else
        locked := storage_cleanup.take_jobs(jobs);
    end if;
    saved := array(select storage_cleanup.saved_among(locked));
    if keep_dependents then
        dependent := array(select storage_cleanup.dependent_among(locked));
    end if;
    going := array(
        select job.id from storage_cleanup.job() as job join storage_cleanup.candidate on candidate.job_id = job.id
        where job.id = any (locked) and job.id <> all (saved || dependent) and job.status = 'completed'
          and (unsaved_at is null or unsaved_at < now() - grace)
          and not exists (select from storage_cleanup.unsaved where unsaved.job_id = job.id and at >= now() - grace)
          and greatest(job.created_at, candidate.completed_at) < now() - max_age
          and not storage_cleanup.has_file(job.output_url)
          and not exists (select from storage_cleanup.deletion as ledger
                          where ledger.job_id = job.id and state <> 'released')
          and (plan is null or job.id in (select planned.job_id from storage_cleanup.plan_job as planned where run_id = plan)));
    if dry_run then
        insert into storage_cleanup.plan_job (run_id, job_id, has_file)
        select this_run, unnest(going), false on conflict do nothing;
    else
        insert into storage_cleanup.deletion (job_id, run_id, state, job, completed_at)
        select id, this_run, 'file_deleted', storage_cleanup.without_long_values(job.fields), candidate.completed_at
        from storage_cleanup.job() as job join storage_cleanup.candidate on candidate.job_id = id where id = any (going);
    end if;
    return query
    with verdict as (
        select asked.id, case
            when asked.id = any (saved) then 'saved'
            when job.id is null then 'job_gone'
            when asked.id <> all (locked) then 'locked'
            when job.status is distinct from 'completed' then 'job_not_completed'
            when storage_cleanup.has_file(job.output_url) then 'job_changed'
            when (greatest(job.created_at, candidate.completed_at) < now() - max_age and candidate.job_id is not null) is not true
                then 'job_too_young'
            when candidate.unsaved_at >= now() - grace
                 or exists (select from storage_cleanup.unsaved where unsaved.job_id = job.id and at >= now() - grace)
                then 'just_unsaved'
            when job.id = any (dependent) then 'has_dependents'
            when plan is not null and planned.job_id is null then 'not_in_plan'
            else 'already_claimed' end as reason
        from unnest(jobs) as asked (id)
        left join storage_cleanup.job() as job on job.id = asked.id
        left join storage_cleanup.candidate on candidate.job_id = asked.id
        left join storage_cleanup.plan_job as planned on planned.run_id = plan and planned.job_id = asked.id
        where asked.id <> all (going)
    ),
    parked as (
        select storage_cleanup.park(array_agg(id) || going, array_agg(reason) || array_fill('claimed'::text, array[cardinality(going)]), max_age)
        from verdict having not dry_run     -- not "where": an aggregate of no rows is a row, too
    )
    select id, reason, null from verdict cross join (select count(*) from parked) as noted
    union all
    select unnest(going), 'claimed', null from (select count(*) from parked) as noted;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/health.sql

-- Health. What the function health asks; all of it only reads. Each reads its tables once, however long they are.

-- What lies in Storage, by bucket; our own holds an object for a moment only.
create or replace function storage_cleanup.stored() returns table (bucket_id text, objects bigint, bytes bigint)
language sql stable security definer set search_path = ''
as $$
    select bucket.id, count(stored.id),
           storage_cleanup.total_size(sum(storage_cleanup.size_of(stored.metadata)))
    from storage.buckets as bucket left join storage.objects as stored on stored.bucket_id = bucket.id
    where bucket.id <> 'storage-cleanup'
    group by bucket.id
$$;

-- Remembers what lies in Storage today; a cycle calls it once a day. The trend of a report is made of these.
create or replace function storage_cleanup.remember_usage() returns void
language sql security definer set search_path = ''
as $$
    insert into storage_cleanup.usage (day, bucket_id, objects, bytes)
    select (now() at time zone 'UTC')::date, bucket_id, objects, bytes from storage_cleanup.stored()
    on conflict do nothing
$$;

-- The jobs that assets name, however they spell it.
create or replace function storage_cleanup.saves() returns table (asset_id text, job_id uuid)
language sql stable security definer set search_path = ''
as $$
    select split_part(source, ':', 2), id from storage_cleanup.mention where is_save
$$;

-- Orphans that a cycle should have taken by now, by the day of their render: candidates that nobody saved, and claims
-- that nobody finished. What a cycle has looked at and kept is no candidate of this age, for it comes back in an hour.
create or replace function storage_cleanup.orphans(max_age interval, grace interval, unsaved_grace interval)
returns table (day date, orphans bigint)
language sql stable security definer set search_path = ''
as $$
    with waiting as (
        select job_id from storage_cleanup.candidate
        where since < now() - max_age - grace and (unsaved_at is null or unsaved_at < now() - unsaved_grace - grace)
          and not exists (select from storage_cleanup.mention where id = candidate.job_id)
        union
        select job_id from storage_cleanup.deletion
        where state in ('claimed', 'file_deleted') and updated_at < now() - grace
    )
    select case when created_at between 'epoch' and '9999-12-31' then (created_at at time zone 'UTC')::date end, count(*)
    from waiting left join storage_cleanup.job() as job on job.id = job_id
    group by 1 order by 1
$$;

-- Completed jobs since then, saved and not saved.
create or replace function storage_cleanup.completed(since timestamptz) returns table (saved bigint, not_saved bigint)
language sql stable security definer set search_path = ''
as $$
    select count(*) filter (where is_saved), count(*) filter (where not is_saved)
    from (select exists (select from storage_cleanup.mention where mention.id = job.id) as is_saved
          from storage_cleanup.job() as job where status = 'completed' and created_at >= since) as recent
$$;

-- Assets by type and day since then.
create or replace function storage_cleanup.assets(since timestamptz)
returns table (day date, asset_type text, assets bigint, bytes bigint)
language sql stable security definer set search_path = ''
as $$
    select (asset.created_at at time zone 'UTC')::date, coalesce(asset.asset_type::text, 'unknown'), count(*),
           storage_cleanup.total_size(sum(storage_cleanup.size_of(jsonb_build_object('size', asset.file_size))))
    from public.user_assets as asset where asset.created_at >= assets.since and asset.created_at < '9999-12-31'
    group by 1, 2 order by 1, 2
$$;

-- Integrity both ways, in one pass. One row a finding, with up to three examples:
--   saved_job_missing      an asset names a job that doesn't exist; `removed` counts those that this system removed
--   saved_file_missing     an asset names a job whose file isn't in its bucket, or needs an object that was removed; `removed`
--                          counts what this system removed, for whichever job, as far as its ledger reaches
--   row_without_file       nobody saved the completed job, it is older than max_age and grace, and its file is gone
--   object_unknown         an object of that age in a listed bucket that no job and no asset points at
--   url_not_understood     the URL of a completed job is another project's, or names no object that could exist
--   url_in_other_bucket    the URL of a completed job names a bucket that isn't listed
create or replace function storage_cleanup.integrity(origins text[], listed text[], max_age interval, grace interval)
returns table (finding text, found bigint, removed bigint, bytes bigint, examples text[])
language sql stable security definer set search_path = '' set work_mem = '64MB'
as $$
    with save as materialized (
        select job_id, min(asset_id) as asset from storage_cleanup.saves() group by job_id
    ),
    job as materialized (       -- so that each URL is read once
        select id, status, storage_cleanup.object_key(output_url) as key,
               greatest(created_at, (select completed_at from storage_cleanup.candidate where job_id = id)) as completed_at,
               not starts_with(output_url, origins[1] || '/') and output_url ~ '^\s*([a-zA-Z][a-zA-Z0-9+.-]*:)?//' and not exists (
                   select from unnest(origins) as origin
                   where starts_with(lower(ltrim(left(output_url, 300), E' \t\n\r\f\x0B')), origin || '/')) as is_foreign
        from (select id, status, created_at, left(output_url, 8192) as output_url
              from storage_cleanup.job() where storage_cleanup.has_file(output_url)) as job
    ),
    placed as (                 -- both ways at once: jobs with or without their object, objects without a job
        select job.*, stored.id as object_id, coalesce(job.key, stored.key) as place
        from job full join (select object.id, object.bucket_id || '/' || object.name as key from storage.objects as object) as stored on stored.key = job.key
    ),
    judged as (
        select placed.id, save.asset, ledger.state, case
            when is_foreign or object_id is null and (bucket.id is null or strpos(key, '/') = length(key)
                                                      or key ~ '[^A-Za-z0-9_/!.*''()&$@=;:+,? -]|(^|/)[.]{1,2}(/|$)')
                then case when placed.status = 'completed' then 'url_not_understood' end
            when object_id is null and save.asset is not null then 'saved_file_missing'
            when placed.status is distinct from 'completed' then null
            when bucket.id <> all (listed) then 'url_in_other_bucket'
            when object_id is null and placed.completed_at < now() - max_age - grace
                 and (state in ('claimed', 'file_deleted') and ledger.updated_at > now() - grace) is not true
                then 'row_without_file' end as finding
        from placed
        left join save on save.job_id = placed.id
        left join storage.buckets as bucket on bucket.id = split_part(key, '/', 1) and strpos(key, '/') > 0
        left join lateral (
            select state, updated_at from storage_cleanup.deletion as known
            where known.job_id = placed.id and known.state <> 'released' order by known.id desc limit 1) as ledger on true
        where placed.id is not null
    ),
    removed as (                -- what assets need, was removed by this system, and isn't there; missing jobs have a finding of their own
        select source
        from storage_cleanup.deletion as ledger join storage_cleanup.reference on reference.object = ledger.object
        where ledger.state in ('claimed', 'file_deleted', 'done')
          and (reference.job_id is null or exists (select from storage_cleanup.job() as job where job.id = reference.job_id))
          and not exists (select from storage.objects as stored
                          where stored.bucket_id = ledger.bucket_id and stored.name = ledger.object_name)
    ),
    without_file as (
        select split_part(source, ':', 2) as asset, true as is_removed from removed
        union all
        select split_part(source, ':', 2), state in ('claimed', 'file_deleted', 'done')
        from judged join storage_cleanup.mention on mention.id = judged.id and is_save where finding = 'saved_file_missing'
    ),
    stranger as (
        select place, storage_cleanup.size_of(stored.metadata) as size
        from placed join storage.objects as stored on stored.id = object_id
        where placed.id is null and stored.bucket_id = any (listed)
          and greatest(stored.created_at, stored.updated_at) < now() - max_age - grace
          and not exists (select from storage_cleanup.reference
                          where object in (storage_cleanup.hash(place), storage_cleanup.hash(storage_cleanup.bare(place))))
    )
    select 'saved_job_missing', count(*), count(*) filter (where exists (
               select from storage_cleanup.deletion as known where known.job_id = save.job_id and known.state = 'done')), 0::bigint, (array_agg(asset))[:3]
    from save where not exists (select from storage_cleanup.job() as job where job.id = save.job_id)
    union all
    select 'saved_file_missing', count(distinct asset), count(distinct asset) filter (where is_removed), 0,
           (array_agg(distinct asset order by asset))[:3]
    from without_file
    union all
    select finding, count(*), 0, 0, (array_agg(coalesce(asset, id::text)))[:3]
    from judged where finding <> 'saved_file_missing' group by finding
    union all
    select 'object_unknown', count(*), 0, storage_cleanup.total_size(sum(size)), (array_agg(place))[:3] from stranger
$$;

-- Bytes of orphans by the month (UTC) in which they were claimed: this one and the last.
create or replace function storage_cleanup.orphan_bytes() returns table (this_month bigint, last_month bigint)
language sql stable security definer set search_path = ''
as $$
    select storage_cleanup.total_size(sum(bytes) filter (where claimed_at >= first)),
           storage_cleanup.total_size(sum(bytes) filter (where claimed_at < first))
    from storage_cleanup.deletion, (select date_trunc('month', now(), 'UTC') as first) as month
    where state in ('claimed', 'file_deleted', 'done') and claimed_at >= first - interval '1 month'
$$;

-- What must be there for cycles to be safe and fast; `used` counts scans since the server's statistics began.
create or replace function storage_cleanup.index_use() returns table (name text, is_valid boolean, used bigint)
language sql stable security definer set search_path = ''
as $$
    select wanted.name, wanted.fault is null, coalesce(idx_scan, 0)
    from storage_cleanup.index_state() as wanted
    left join pg_stat_user_indexes on indexrelid = to_regclass(format('public.%I', wanted.name))
    order by wanted.name
$$;

-- Foreign keys that reference render_jobs and have no index: their whole table is read for every row that is deleted.
create or replace function storage_cleanup.foreign_keys_without_index() returns setof text
language sql stable security definer set search_path = ''
as $$
    select format('%s (%s)', conrelid::regclass, (
               select string_agg(attname, ', ' order by place)
               from unnest(conkey) with ordinality as part (number, place) join pg_attribute on attrelid = conrelid and attnum = number))
    from pg_constraint
    where contype = 'f' and confrelid = 'public.render_jobs'::regclass and conparentid = 0
      and not exists (select from pg_index
                      where indrelid = conrelid and indisvalid and indpred is null
                        and (indkey::smallint[])[0:cardinality(conkey) - 1] @> conkey)
    order by 1
$$;

-- Sessions that wait for a lock while they work with one of the two tables, and transactions on them older than five minutes.
create or replace function storage_cleanup.lock_trouble() returns table (waiting bigint, long_running bigint)
language sql stable security definer set search_path = ''
as $$
    select count(*) filter (where wait_event_type = 'Lock'), count(*) filter (where xact_start < clock_timestamp() - interval '5 minutes')
    from pg_stat_activity
    where pid <> pg_backend_pid()
      and pid in (select pid from pg_locks where relation in ('public.render_jobs'::regclass, 'public.user_assets'::regclass))
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- functions/columns.sql

-- The search for columns that nobody has told us of.

-- Columns that seem to hold paths of objects, but for those that are protected anyway and those of `known`
-- ('schema.table.column'). The first and the last rows of each table are looked at; only names leave the database.
create or replace function storage_cleanup.columns_with_paths(known text[]) returns setof text
language plpgsql stable security definer set search_path = ''
as $$
declare
    each     record;
    is_found boolean;
begin
    for each in
        select attrelid::regclass as of_table, attname, format('%I.%I.%I', nspname, relname, attname) as name,
               greatest(0, pg_relation_size(attrelid) / current_setting('block_size')::bigint - 25) as last_blocks
        from pg_attribute join pg_class on pg_class.oid = attrelid join pg_namespace on pg_namespace.oid = relnamespace
        where relkind = 'r' and relpersistence <> 't' and attnum > 0 and not attisdropped
          and nspname not in ('storage', 'storage_cleanup', 'auth', 'vault', 'cron', 'net', 'information_schema') and nspname not like 'pg\_%'
          and atttypid in ('text'::regtype, 'varchar'::regtype, 'json'::regtype, 'jsonb'::regtype, 'text[]'::regtype, 'varchar[]'::regtype)
          and attrelid <> 'public.user_assets'::regclass
          and not (attrelid = 'public.render_jobs'::regclass and attname = 'output_url')
          and not exists (select from storage_cleanup.place where of_table = attrelid and attname = any (columns))
        order by name
    loop
        continue when exists (
            select from unnest(known) as given where given = each.name
               or array_to_string(parse_ident(given), '.') = array_to_string(parse_ident(each.name), '.'));
        begin
            execute format(
                'select exists (
                     select from ((select %1$I::text as value from %2$s limit 200)
                                  union all (select %1$I::text from %2$s where ctid >= ''(%3$s,0)'' limit 200)) as sample
                     where value ~ ''/storage/v1/(object|render|s3)/''
                        or value ~ ''/|[.][A-Za-z0-9]'' and exists (
                            select from unnest(storage_cleanup.readings(left(value, 2000))) as key cross join storage.buckets as bucket
                            join storage.objects as stored on stored.bucket_id = bucket.id
                             and stored.name = substr(key, position(''/'' in key) + 1) and split_part(key, ''/'', 1) in (''*'', bucket.id)))',
                each.attname, each.of_table, each.last_blocks) into is_found;
        exception when insufficient_privilege then
            is_found := false;
        end;
        if is_found then
            return next each.name;
        end if;
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- worker.sql

-- The worker: may call the functions above that a cycle and health need, and read its own tables. Give it a password with
--        alter role storage_cleanup_worker login password '…';

do $$
begin
    if not exists (select from pg_roles where rolname = 'storage_cleanup_worker') then
        create role storage_cleanup_worker nologin noinherit;
    end if;
end $$;

-- What cycles and health call, and nothing else.
create or replace function storage_cleanup.worker_functions() returns setof regprocedure
language sql stable
as $$
    select oid::regprocedure from pg_proc
    where pronamespace = 'storage_cleanup'::regnamespace and proname = any (array[
        'schema_version', 'distrust', 'buckets', 'canaries', 'count_saved', 'plan', 'open_run', 'start_run', 'due', 'park', 'set_aside', 'claim', 'adopt',
        'settle', 'give_back', 'give_back_abandoned', 'leftover_rows', 'delete_rows', 'claim_fileless', 'backlog',
        'compare_if_due', 'unprotected_among', 'prune', 'judge_saved', 'most_saved', 'first_run_facts', 'finish_run', 'stored', 'orphans', 'completed',
        'assets', 'integrity', 'orphan_bytes', 'index_use', 'foreign_keys_without_index', 'lock_trouble', 'columns_with_paths', 'has_died'])
$$;

revoke all on all tables in schema storage_cleanup from public;
revoke all on all functions in schema storage_cleanup from public;
grant execute on function storage_cleanup.worker_functions() to public;     -- health asks any role for what it lacks

grant usage on schema storage_cleanup to storage_cleanup_worker;
grant select on storage_cleanup.run, storage_cleanup.deletion, storage_cleanup.candidate, storage_cleanup.plan_job,
    storage_cleanup.usage
    to storage_cleanup_worker;
do $$
declare
    needed regprocedure;
begin
    for needed in select storage_cleanup.worker_functions() loop
        execute format('grant execute on function %s to storage_cleanup_worker', needed);
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- bucket.sql

-- The bucket of the system's own, for the small object by which a run proves that Storage and database are one project.
-- Private, and without a policy: nobody reaches it but the service role.

insert into storage.buckets (id, name, public) values ('storage-cleanup', 'storage-cleanup', false) on conflict do nothing;

-- ---------------------------------------------------------------------------------------------------------------
-- indexes.sql

-- The indexes on the application's tables, as far as something is wrong with them.

-- Both tables at once, or neither: holding one and waiting for the other would be a deadlock with whoever does the opposite,
-- and so would be a stronger lock later. Less than deadlock_timeout, so that it is never the application that pays for it.
do $$
declare
    mode text := (select case when bool_or(fault <> 'missing') then 'access exclusive' else 'share row exclusive' end
                  from (select fault from storage_cleanup.index_state()
                        union all
                        select 'missing' from storage_cleanup.trigger_state() where fault is not null
                        union all       -- saves that began under other functions must have ended
                        select 'missing' from storage_cleanup.gate where opens_at = now()
                        union all
                        select 'missing' from storage_cleanup_changed) as wrong
                  where fault is not null having count(*) > 0);
begin
    perform set_config('lock_timeout', '500ms', true);
    for attempt in 1 .. 40 loop
        exit when mode is null;
        begin
            execute format('lock table public.render_jobs, public.user_assets in %s mode', mode);
            mode := null;
        exception when lock_not_available then
            perform pg_sleep(0.2);
        end;
    end loop;
    if mode is not null then
        raise exception 'somebody is always at work in public.render_jobs or public.user_assets: use `make install-database`, '
            'which can go on meanwhile, or try again in a quiet minute';
    end if;
end $$;

do $$
declare
    wanted record;
begin
    for wanted in select * from storage_cleanup.index_state() where fault is not null loop
        execute format('drop index if exists public.%I', wanted.name);
        execute format('create index %I %s', wanted.name, wanted.definition);
        execute format('comment on index public.%I is %L', wanted.name, wanted.fingerprint);
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- triggers.sql

-- The triggers on the application's tables, as far as something is wrong with them.
select storage_cleanup.make_trigger(of_table, name) from storage_cleanup.trigger_state() where fault is not null;

-- ---------------------------------------------------------------------------------------------------------------
-- first_look.sql

-- What is there already, and what the triggers missed while they were away.
do $$
begin
    while (select not is_done from storage_cleanup.compare_if_due()) loop
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- gate_open.sql

-- A claim that has waited at the gate began with the functions as they were: it is refused, and so is what begins before the
-- commit.
update storage_cleanup.gate set opens_at = clock_timestamp() + interval '5 seconds'
where opens_at = now() or exists (select from storage_cleanup_changed);

commit;
