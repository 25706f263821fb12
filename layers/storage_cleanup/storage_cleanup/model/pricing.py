"""What stored bytes cost."""

import os

GIGABYTE = 10**9  # bytes, as Supabase bills them

_DEFAULT_PRICE = "0.021"  # dollars for a gigabyte and month, as Supabase bills storage beyond the plan (2026)


def price_per_gigabyte_month() -> float:
    """Return the price of a gigabyte and month in dollars: ``STORAGE_PRICE_PER_GB_MONTH``, or Supabase's own."""
    return float(os.environ.get("STORAGE_PRICE_PER_GB_MONTH") or _DEFAULT_PRICE)


def monthly_cost(stored: int) -> float:
    """Return what so many stored bytes cost a month, in dollars."""
    return stored / GIGABYTE * price_per_gigabyte_month()
