"""The sections of the report: each draws a part of a record, whatever of it is missing."""
