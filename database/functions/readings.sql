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
