-- What is there already, and what the triggers missed while they were away.
do $$
begin
    while (select not is_done from storage_cleanup.compare_if_due()) loop
    end loop;
end $$;
