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
