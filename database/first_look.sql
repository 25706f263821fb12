-- What is there already, and what the triggers missed while they were away.
select storage_cleanup.compare('epoch') from storage_cleanup.comparison where last_at is null;
select storage_cleanup.compare_if_due();
