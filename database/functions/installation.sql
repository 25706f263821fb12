-- The installation. What belongs on the application's tables is written down here once: both ways of installing make
-- what is missing of it, preflight and health look for it.

-- The function deletes nothing when this number isn't the one that it was built for.
create or replace function storage_cleanup.schema_version() returns integer
language sql immutable parallel safe
return 1;

-- Notes the columns of user_assets that may point at a file by a path of their own.
create or replace function storage_cleanup.note_path_columns() returns void
language sql set search_path = ''
as $$
    delete from storage_cleanup.asset_path_column
    where name not in (select column_name from information_schema.columns
                       where table_schema = 'public' and table_name = 'user_assets');
    insert into storage_cleanup.asset_path_column
    select column_name from information_schema.columns
    where table_schema = 'public' and table_name = 'user_assets'
      and data_type in ('text', 'character varying') and is_generated = 'NEVER'
      and column_name ~* '(^|_)(url|uri|path|src|file|file_?name|key|object|location)s?$'
    on conflict do nothing;
$$;

create or replace function storage_cleanup.wanted_indexes() returns table (name text, definition text)
language sql stable set search_path = ''
as $$
    -- Hash, because a B-tree would refuse the application's row when a value is long; NULLs take no room in it.
    select 'storage_cleanup_render_job_id', 'on public.user_assets using hash ((metadata ->> ''render_job_id''))'
    union all   -- All saves, for counting them without reading them. Its key is the same for all: small, and cheap to write.
    select 'storage_cleanup_saved', 'on public.user_assets ((true)) where metadata ->> ''render_job_id'' is not null'
    union all   -- Unusual spellings only: as good as empty.
    select 'storage_cleanup_render_job_ids',
           'on public.user_assets using gin (storage_cleanup.job_ids_in(metadata ->> ''render_job_id'')) '
           'where not storage_cleanup.is_plain_job_id(metadata ->> ''render_job_id'')'
    union all
    select 'storage_cleanup_object_key', 'on public.render_jobs using hash (storage_cleanup.object_key(output_url))'
    union all   -- An asset may point at a file by a path of its own as well.
    select left('storage_cleanup_path_' || path.name, 63),
           format('on public.user_assets using hash (storage_cleanup.object_key(%I))', path.name)
    from storage_cleanup.asset_path_column as path
$$;

-- What is wrong with each index: 'missing', 'invalid', 'outdated'; null when nothing is. An index keeps what a function
-- answered when the row was written, so its comment says which definition and which functions it was built with.
create or replace function storage_cleanup.index_state() returns table (name text, definition text, fingerprint text, fault text)
language sql stable set search_path = ''
as $$
    select wanted.name, wanted.definition, wanted.fingerprint, case
        when indexrelid is null then 'missing'
        when not (indisvalid and indisready) then 'invalid'
        when obj_description(indexrelid, 'pg_class') is distinct from wanted.fingerprint then 'outdated' end
    from (select index.name, index.definition, md5(index.definition || coalesce((
                     select string_agg(prosrc, '' order by proname)
                     from regexp_matches(index.definition, 'storage_cleanup\.\w+', 'g') as called
                     join pg_proc on pg_proc.oid = to_regproc(called[1])), '')) as fingerprint
          from storage_cleanup.wanted_indexes() as index) as wanted
    left join pg_index on indexrelid = to_regclass(format('public.%I', wanted.name))
    order by wanted.name
$$;

-- The triggers in the words of pg_get_triggerdef, with tgenabled, in the order in which they are made: the guard last,
-- because nothing is claimed without it. None names a column, in a list or in WHEN: it could no longer be given another
-- type, or be dropped.
create or replace function storage_cleanup.wanted_triggers()
returns table (place integer, name text, of_table regclass, definition text, enabled text)
language sql stable set search_path = ''
as $$
    values (1, 'storage_cleanup_track_render', 'public.render_jobs'::regclass,
            'AFTER INSERT OR UPDATE ON public.render_jobs FOR EACH ROW EXECUTE FUNCTION storage_cleanup.track_render()', 'O'),
           (2, 'storage_cleanup_track_unsave', 'public.user_assets'::regclass,
            'AFTER DELETE OR UPDATE ON public.user_assets FOR EACH ROW EXECUTE FUNCTION storage_cleanup.track_unsave()', 'O'),
           -- Always: a replication or restore session must not save past the guard either.
           (3, 'storage_cleanup_guard', 'public.user_assets'::regclass, format(
            'BEFORE INSERT OR UPDATE ON public.user_assets FOR EACH ROW EXECUTE FUNCTION storage_cleanup.guard_save(%s)',
            (select string_agg(quote_literal(path.name), ', ' order by path.name) from storage_cleanup.asset_path_column as path)), 'A')
$$;

-- What is wrong with each trigger: 'missing', 'different'; null when nothing is.
create or replace function storage_cleanup.trigger_state() returns table (place integer, name text, fault text)
language sql stable set search_path = ''
as $$
    select wanted.place, wanted.name, case
        when pg_trigger.oid is null then 'missing'
        when pg_get_triggerdef(pg_trigger.oid) <> format('CREATE TRIGGER %I %s', wanted.name, definition)
             or tgenabled::text <> enabled then 'different' end
    from storage_cleanup.wanted_triggers() as wanted
    left join pg_trigger on tgrelid = of_table and tgname = wanted.name and not tgisinternal
    order by wanted.place
$$;

-- Makes one trigger. Whatever happened while it was away is looked for afterwards.
create or replace function storage_cleanup.make_trigger(wanted text) returns void
language plpgsql set search_path = ''
as $$
declare
    made record;
begin
    select * into strict made from storage_cleanup.wanted_triggers() where name = wanted;
    execute format('create or replace trigger %I %s', made.name, made.definition);
    if made.enabled <> 'O' then
        execute format('alter table %s enable %s trigger %I', made.of_table,
                       case made.enabled when 'A' then 'always' else 'replica' end, made.name);
    end if;
    update storage_cleanup.first_look set after_job = default, done_at = null;
end $$;

-- The first look at the jobs that were there before the triggers, a slice in order of id; false when there is no more.
-- `reconcile` does the same for all at once, which would hold up an application that completes one of them meanwhile.
create or replace function storage_cleanup.look_at_slice(slice_size integer) returns boolean
language plpgsql set search_path = ''
as $$
declare
    slice uuid[];
begin
    perform storage_cleanup.assert_trust();
    slice := array(select id from public.render_jobs
                   where id > (select after_job from storage_cleanup.first_look) order by id limit slice_size);
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
    select id, storage_cleanup.created(created_at), storage_cleanup.created(created_at), storage_cleanup.has_file(output_url)
    from public.render_jobs as job
    where id = any (slice) and status = 'completed'
      and not exists (select from storage_cleanup.saved_among(slice) as saved where saved = job.id)
      and not exists (select from storage_cleanup.candidate where job_id = job.id)
      and not exists (select from storage_cleanup.deletion where job_id = job.id and state <> 'released')
    order by id
    on conflict do nothing;
    update storage_cleanup.first_look
    set after_job = coalesce(slice[cardinality(slice)], after_job),
        done_at = case when cardinality(slice) < slice_size then clock_timestamp() end;
    return cardinality(slice) = slice_size;
end $$;
