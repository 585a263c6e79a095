"""Telling watchers at once: channels in memory, fed from the outbox."""
