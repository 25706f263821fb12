-- Trust. Everything here must hold before anything is claimed, and is asserted again in every claim.

-- The triggers that must be there; bits of a type: 1 each row, 4 insert, 8 delete, 16 update, 32 truncate.
create or replace function storage_cleanup.triggers() returns table (of_table text, name text, function text, type smallint, enabled "char")
language sql immutable
as $$
    select 'public.' || of_table, 'storage_cleanup_' || name, 'storage_cleanup.' || function, type::smallint, enabled::"char"
    from (values
        ('user_assets', 'asset_inserted', 'assets_written', 4, 'O'),
        ('user_assets', 'asset_updated', 'assets_written', 16, 'O'),
        ('user_assets', 'asset_deleted', 'assets_gone', 8, 'O'),
        ('user_assets', 'asset_truncated', 'assets_gone', 32, 'O'),
        ('user_assets', 'asset_applied', 'asset_applied', 1 + 4 + 8 + 16, 'R'),
        ('render_jobs', 'job_inserted', 'jobs_written', 4, 'O'),
        ('render_jobs', 'job_updated', 'jobs_written', 16, 'O'),
        ('render_jobs', 'job_deleted', 'jobs_gone', 8, 'O'),
        ('render_jobs', 'job_truncated', 'jobs_gone', 32, 'O'),
        ('render_jobs', 'job_applied', 'job_applied', 1 + 4 + 8 + 16, 'R')) as wanted (of_table, name, function, type, enabled)
$$;

-- Those that are missing, off or altered, with the statements that make them. Those for each row fire where the others don't:
-- for what replication or a restore applies.
create or replace function storage_cleanup.missing_triggers() returns table (of_table text, name text, statement text)
language sql stable security definer set search_path = ''
as $$
    select wanted.of_table, wanted.name, format(
        'create or replace trigger %1$I after %2$s on %3$s %4$s for each %5$s execute function %6$s(); alter table %3$s enable %7$s trigger %1$I',
        wanted.name, concat_ws(' or ', case when type & 4 > 0 then 'insert' end, case when type & 8 > 0 then 'delete' end,
                               case when type & 16 > 0 then 'update' end, case when type & 32 > 0 then 'truncate' end),
        wanted.of_table,
        case when type in (4, 8, 16) then concat_ws(' ', 'referencing', case when type <> 4 then 'old table as old_rows' end,
                                                    case when type <> 8 then 'new table as new_rows' end) end,
        case when type & 1 > 0 then 'row' else 'statement' end, wanted.function, case wanted.enabled when 'R' then 'replica' end)
    from storage_cleanup.triggers() as wanted
    where not exists (
        select from pg_trigger
        where tgrelid = wanted.of_table::regclass and tgname = wanted.name and tgfoid = wanted.function::regproc
          and tgtype = wanted.type and tgenabled = wanted.enabled and tgqual is null and tgattr::text = '')
$$;

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
    select 'guard', format('trigger %s on %s is missing, off or altered, and what it should see might be deleted: run database/install.sql',
                           wanted.name, wanted.of_table)
    from storage_cleanup.missing_triggers() as wanted
    union all
    select 'index', 'the index storage_cleanup_render_job_id is missing or invalid: run database/install.sql'
    where not exists (select from pg_index
                      where indexrelid = to_regclass('public.storage_cleanup_render_job_id') and indisvalid)
    union all
    select 'changed', 'the triggers or the tables have changed since everything was last compared: the next cycle compares'
    where storage_cleanup.fingerprint() is distinct from (select fingerprint from storage_cleanup.comparison)
    union all
    select 'replica', 'the database is a read-only replica: use the primary''s address in database/url'
    where pg_is_in_recovery()
$$;

create or replace function storage_cleanup.assert_trust() returns void
language plpgsql stable security definer set search_path = ''
as $$
declare
    reasons text := (select string_agg(sentence, '; ') from storage_cleanup.distrust());
begin
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
    select name from storage.objects
    where bucket_id = 'storage-cleanup' and name ~ '^canary/[0-9a-f-]{36}$'
      and not exists (select from storage_cleanup.run as other
                      where other.id <> this_run and other.status = 'running' and name = 'canary/' || other.id)
    order by name <> 'canary/' || this_run limit 100
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
create or replace function storage_cleanup.first_look() returns table (has_assets boolean, has_jobs boolean, keys text[])
language sql stable security definer set search_path = ''
as $$
    select exists (select from public.user_assets),
           (select count(*) > 20 from (select from public.render_jobs where status = 'completed' limit 21) as completed),
           array(select key
                 from (select metadata from public.user_assets where jsonb_typeof(metadata) = 'object' limit 200) as sample,
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
language plpgsql stable security definer set search_path = ''
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
        return query execute format('select job from unnest($1) as job where exists (select from %s where %I = job)',
                                    dependence.of_table, dependence.of_column) using jobs;
    end loop;
end $$;
