"""A report as people look at it: charts, one page that needs nothing else, and the way to its readers.

Imported only when a report is asked for, because the chart library and the template engine take time to import.
"""
