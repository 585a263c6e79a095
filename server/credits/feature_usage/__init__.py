"""FeatureUsageLog: a row for every interaction that partners tell of, redacted and bounded."""
