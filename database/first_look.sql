-- What is there already, and what the triggers missed while they were away.
select storage_cleanup.compare('epoch') from storage_cleanup.first_look where done_at is null;
update storage_cleanup.first_look set done_at = clock_timestamp() where done_at is null;
select storage_cleanup.compare_if_due();
