"""The SDK of zaaz."""
