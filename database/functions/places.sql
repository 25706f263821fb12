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
