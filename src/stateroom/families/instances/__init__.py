"""Workflow instances with unique business keys."""
