"""What an invocation may ask, validated, and the messages of refusals."""
