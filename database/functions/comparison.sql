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
