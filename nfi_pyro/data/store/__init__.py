"""Panels on disk: written whole or not at all, appended to, read date by date, verified."""
