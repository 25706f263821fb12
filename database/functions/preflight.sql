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
