"""Who may call: API keys, their authentication and their end."""
