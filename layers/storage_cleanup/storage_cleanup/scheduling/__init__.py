"""The rule that starts cycles: its rate, whether cycles keep to it, and drains."""
