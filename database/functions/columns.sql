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
