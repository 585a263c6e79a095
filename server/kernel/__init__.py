"""Pure basics: money, errors, ids, clock, paging, principal. Imports nothing of the house."""
