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
