"""Audits: many pictures inspected by a script, one record a line, that no interruption loses or doubles."""
