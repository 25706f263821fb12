"""The vocabulary of the system: phases, reasons, accounts. It depends on nothing."""
