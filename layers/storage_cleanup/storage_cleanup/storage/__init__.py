"""Supabase Storage: the only room that imports an HTTP client."""
