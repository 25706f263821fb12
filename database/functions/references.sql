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
