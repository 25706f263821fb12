"""The database room: tables as numbered migrations, functions by subject, and how they are installed."""
